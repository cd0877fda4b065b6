#include "planner/traffic.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

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
        topology_(topology),
        options_(options),
        router_(layer, index, placement, topology, options.flow, options.rule) {
    traffic_.tokens = static_cast<double>(layer.tokens);
    for (Traffic::Phase& phase : traffic_.phases) {
      phase.egress.resize(as_index(topology.nodes()));
      phase.ingress.resize(as_index(topology.nodes()));
    }
    traffic_.expert_rows.assign(layer.groups.size(),
                                std::vector<double>(as_index(topology.ranks())));
    traffic_.pivots.resize(as_index(topology.ranks()));
  }

  Traffic count() {
    for (token_ = 0; token_ < layer_.tokens; ++token_) {
      for_each_home([&](const WeightedHome& home) { add(home); });
    }
    return std::move(traffic_);
  }

 private:
  template <class Visit>
  void for_each_home(Visit visit) const {
    if (!layer_.home.empty()) {
      visit({layer_.home[as_index(token_)], 1});
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
    const TokenRoute route = router_.route(token_, home.rank);
    for_each_message(router_.flow(), route, topology_, [&](TravelPhase phase, int from, int to) {
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
    add_work(0, route.a_ranks, home.weight);
    if (layer_.groups.size() == 2) {
      add_work(1, route.b_ranks, home.weight);
      traffic_.pivots[as_index(route.pivot)] += home.weight;
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
  const Topology& topology_;
  const TrafficOptions& options_;
  TokenRouter router_;
  Traffic traffic_;
  std::int64_t token_ = 0;
};

}  // namespace

double Traffic::Phase::inter() const { return std::reduce(egress.begin(), egress.end()); }

double Traffic::copies() const {
  double sum = 0;
  for (const Phase& phase : phases) {
    sum += phase.inter();
  }
  return sum;
}

void check_homes(const LayerTrace& layer, const Topology& topology) {
  for (std::size_t token = 0; token < layer.home.size(); ++token) {
    if (layer.home[token] < 0 || layer.home[token] >= topology.ranks()) {
      throw ConfigError(fmt::format("the trace has token {} on rank {}, but there are {} ranks",
                                    token, layer.home[token], topology.ranks()));
    }
  }
}

Traffic count_traffic(const LayerTrace& layer, int index, const Placement& placement,
                      const Topology& topology, const TrafficOptions& options) {
  check_homes(layer, topology);
  if (options.rule == PivotRule::gate && placement.score_nodes() > 0) {
    return TrafficCounter(layer, index, placement.without_pivot_scores(), topology, options)
        .count();
  }
  return TrafficCounter(layer, index, placement, topology, options).count();
}

}  // namespace cartesian
