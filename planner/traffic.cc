#include "planner/traffic.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "base/error.h"
#include "base/index.h"

namespace cartesian {

namespace {

struct WeightedHome {
  int rank = 0;
  double weight = 1;
};

class TrafficCounter {
 public:
  TrafficCounter(const LayerTrace& layer, int index, const Placement& placement,
                 const Topology& topology, const TrafficOptions& options)
      : layer_(layer),
        index_(index),
        placement_(placement),
        topology_(topology),
        options_(options),
        flow_(layer.groups.size() == 2 || options.flow == Flow::flat ? options.flow : Flow::home) {
    traffic_.tokens = static_cast<double>(layer.tokens);
    for (Traffic::Phase& phase : traffic_.phases) {
      phase.egress.resize(as_index(topology.nodes()));
      phase.ingress.resize(as_index(topology.nodes()));
    }
    traffic_.expert_rows.assign(layer.groups.size(),
                                std::vector<double>(as_index(topology.ranks())));
    traffic_.pivots.resize(as_index(topology.ranks()));
    if (flow_ == Flow::pivot && options.rule == PivotRule::speculative &&
        layer.speculative.empty()) {
      throw ConfigError(
          fmt::format("the trace has no speculative choices for block {}: choose "
                      "pivots by table or gate",
                      layer.block));
    }
  }

  Traffic count() {
    for (token_ = 0; token_ < layer_.tokens; ++token_) {
      widen(layer_.groups[0].of(token_), a_);
      if (layer_.groups.size() == 2) {
        widen(layer_.groups[1].of(token_), b_);
      }
      evidence_.clear();
      if (flow_ == Flow::pivot && options_.rule == PivotRule::oracle) {
        evidence_ = b_;
      } else if (flow_ == Flow::pivot && options_.rule == PivotRule::speculative) {
        const auto k = as_index(layer_.groups[1].choices);
        widen(layer_.speculative.subspan(as_index(token_) * k, k), evidence_);
      }
      for_each_home([&](const WeightedHome& home) { add(home); });
    }
    return std::move(traffic_);
  }

 private:
  static void widen(std::span<const std::int16_t> from, std::vector<std::int32_t>& to) {
    to.assign(from.begin(), from.end());
  }

  template <class Visit>
  void for_each_home(Visit visit) const {
    if (!layer_.home.empty()) {
      const int home = layer_.home[as_index(token_)];
      if (home >= topology_.ranks()) {
        throw ConfigError(fmt::format("the trace has token {} on rank {}, but there are {} ranks",
                                      token_, home, topology_.ranks()));
      }
      visit({home, 1});
    } else if (topology_.nodes() <= options_.homes) {
      for (int node = 0; node < topology_.nodes(); ++node) {
        const auto ranks = topology_.ranks_of_node(node);
        visit({ranks[as_index(token_) % ranks.size()],
               static_cast<double>(ranks.size()) / topology_.ranks()});
      }
    } else {
      for (int i = 0; i < options_.homes; ++i) {
        const std::int64_t rank =
            (token_ * 7919 + std::int64_t{i} * topology_.ranks() / options_.homes) %
            topology_.ranks();
        visit({static_cast<int>(rank), 1.0 / options_.homes});
      }
    }
  }

  void add(const WeightedHome& home) {
    a_ranks_.resize(a_.size());
    b_ranks_.resize(b_.size());
    choose(0, home.rank, home.rank, a_, a_ranks_);
    const int pivot = choose_pivot(
        flow_, index_, home.rank, token_,
        {.a = a_,
         .gates = layer_.groups[0].gates.subspan(as_index(token_) * a_.size(), a_.size()),
         .a_ranks = a_ranks_,
         .b = evidence_},
        placement_, topology_);
    choose(1, pivot, home.rank, b_, b_ranks_);
    for_each_message(
        flow_, {.home = home.rank, .pivot = pivot, .a_ranks = a_ranks_, .b_ranks = b_ranks_},
        topology_, [&](TravelPhase phase, int from, int to) {
          Traffic::Phase& counted = traffic_.phases.at(static_cast<std::size_t>(phase));
          const int source = topology_.node(from);
          const int target = topology_.node(to);
          if (source == target) {
            counted.intra += home.weight;
          } else {
            counted.egress[as_index(source)] += home.weight;
            counted.ingress[as_index(target)] += home.weight;
          }
        });
    add_work(0, a_ranks_, home.weight);
    if (layer_.groups.size() == 2) {
      add_work(1, b_ranks_, home.weight);
      traffic_.pivots[as_index(pivot)] += home.weight;
    }
  }

  void choose(int group, int origin, int home, std::span<const std::int32_t> experts,
              std::span<std::int32_t> ranks) const {
    if (!experts.empty()) {
      choose_replicas({.layer = index_,
                       .group = group,
                       .origin = origin,
                       .home = home,
                       .token = token_,
                       .experts = experts},
                      placement_, topology_, ranks);
    }
  }

  void add_work(std::size_t group, std::span<const std::int32_t> ranks, double weight) {
    for (const std::int32_t rank : ranks) {
      if (rank >= 0) {
        traffic_.expert_rows[group][as_index(rank)] += weight;
      }
    }
  }

  const LayerTrace& layer_;
  int index_;
  const Placement& placement_;
  const Topology& topology_;
  const TrafficOptions& options_;
  Flow flow_;
  Traffic traffic_;
  std::int64_t token_ = 0;
  std::vector<std::int32_t> a_, b_, evidence_, a_ranks_, b_ranks_;
};

}  // namespace

std::string_view name_of(PivotRule rule) {
  switch (rule) {
    case PivotRule::oracle:
      return "oracle";
    case PivotRule::speculative:
      return "speculative";
    case PivotRule::table:
      return "table";
    case PivotRule::gate:
      return "gate";
  }
  return "?";
}

double Traffic::Phase::inter() const { return std::reduce(egress.begin(), egress.end()); }

double Traffic::copies() const {
  double sum = 0;
  for (const Phase& phase : phases) {
    sum += phase.inter();
  }
  return sum;
}

Traffic count_traffic(const LayerTrace& layer, int index, const Placement& placement,
                      const Topology& topology, const TrafficOptions& options) {
  check(placement.shape().ranks == topology.ranks() &&
            placement.shape().groups == static_cast<int>(layer.groups.size()),
        "the placement is of this trace and topology");
  if (options.rule == PivotRule::gate && placement.score_nodes() > 0) {
    return TrafficCounter(layer, index, placement.without_pivot_scores(), topology, options)
        .count();
  }
  return TrafficCounter(layer, index, placement, topology, options).count();
}

}  // namespace cartesian
