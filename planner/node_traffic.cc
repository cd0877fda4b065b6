#include "planner/node_traffic.h"

#include <algorithm>
#include <bit>
#include <tuple>

#include "base/check.h"
#include "base/index.h"

namespace cartesian {

namespace {

using Nodes = std::uint64_t;
Nodes bit_of(int node) { return Nodes{1} << node; }

template <class Visit>
void for_each_bit(Nodes nodes, Visit visit) {
  for (; nodes != 0; nodes &= nodes - 1) {
    visit(std::countr_zero(nodes));
  }
}

class NodeTraffic {
 public:
  NodeTraffic(const LayerTrace& layer, const SingleReplicas& placed, const Topology& topology,
              const TrafficOptions& options)
      : layer_(layer),
        placed_(placed),
        topology_(topology),
        options_(options),
        groups_(layer.groups.size()),
        pivots_(options.flow == Flow::pivot && groups_ == 2),
        guessed_(pivots_ && options.rule == PivotRule::speculative) {
    check(topology.nodes() <= kMostTrafficNodes && options.flow != Flow::flat,
          "traffic of few nodes, with what goes to one of them sent once");
    traffic_.tokens = static_cast<double>(layer.tokens);
    for (Traffic::Phase& phase : traffic_.phases) {
      phase.egress.resize(as_index(topology.nodes()));
      phase.ingress.resize(as_index(topology.nodes()));
    }
    traffic_.expert_rows.assign(groups_, std::vector<double>(as_index(topology.ranks())));
    traffic_.pivots.resize(as_index(topology.ranks()));
    for (const int rank : placed.ranks) {
      node_of_.push_back(topology.node(rank));
    }
    score_.resize(as_index(topology.nodes()));
    gate_.resize(as_index(topology.nodes()));
  }

  Traffic count() {
    for (std::int64_t token = 0; token < layer_.tokens; ++token) {
      read(token);
      for_each_home(token, [&](int home, double weight) { add(home, weight); });
    }
    return std::move(traffic_);
  }

 private:
  /// As count_traffic() has them.
  template <class Visit>
  void for_each_home(std::int64_t token, Visit visit) const {
    if (!layer_.home.empty()) {
      visit(layer_.home[as_index(token)], 1.0);
    } else if (topology_.nodes() <= options_.homes) {
      for (int node = 0; node < topology_.nodes(); ++node) {
        const auto ranks = topology_.ranks_of_node(node);
        visit(ranks[as_index(token) % ranks.size()],
              static_cast<double>(ranks.size()) / topology_.ranks());
      }
    } else {
      for (int i = 0; i < options_.homes; ++i) {
        visit(
            static_cast<int>((token * 7919 + std::int64_t{i} * topology_.ranks() / options_.homes) %
                             topology_.ranks()),
            1.0 / options_.homes);
      }
    }
  }

  Nodes read_group(std::size_t group, std::span<const std::int16_t> ids, std::vector<int>& ranks) {
    Nodes nodes = 0;
    ranks.clear();
    for (const std::int16_t id : ids) {
      if (id >= 0) {
        const std::size_t expert = group * as_index(layer_.experts) + as_index(id);
        nodes |= bit_of(node_of_[expert]);
        if (std::ranges::find(ranks, placed_.ranks[expert]) == ranks.end()) {
          ranks.push_back(placed_.ranks[expert]);
        }
      }
    }
    return nodes;
  }

  void read(std::int64_t token) {
    for (std::size_t group = 0; group < groups_; ++group) {
      const auto ids = layer_.groups[group].of(token);
      visited_.at(group) = read_group(group, ids, ranks_.at(group));
      for (const std::int16_t id : ids) {
        if (id >= 0) {
          const std::size_t expert = group * as_index(layer_.experts) + as_index(id);
          ++traffic_.expert_rows[group][as_index(placed_.ranks[expert])];
        }
      }
    }
    if (!pivots_) {
      return;
    }
    guess_ = 0;
    if (guessed_) {
      const std::size_t k = as_index(layer_.groups[1].choices);
      for (const std::int16_t id : layer_.speculative.subspan(as_index(token) * k, k)) {
        guess_ |= id < 0 ? 0 : bit_of(node_of_[as_index(layer_.experts) + as_index(id)]);
      }
    }
    std::ranges::fill(score_, 0.0);
    std::ranges::fill(gate_, 0.0F);
    const LayerTrace::Group& a = layer_.groups[0];
    const auto ids = a.of(token);
    for (std::size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] < 0) {
        continue;
      }
      if (!a.gates.empty()) {
        float& gate = gate_[as_index(node_of_[as_index(ids[i])])];
        gate = std::max(gate, a.gates[as_index(token) * ids.size() + i]);
      }
      for (std::size_t node = 0; node < score_.size() && !placed_.scores.empty(); ++node) {
        score_[node] += placed_.scores[as_index(ids[i]) * score_.size() + node];
      }
    }
  }

  double copies_by(int node, int home) const {
    const Nodes beside = ~bit_of(node);
    double copies = std::popcount(visited_[0] & beside);
    if (!guessed_) {
      copies -= score_[as_index(node)];
    } else if (guess_ == 0) {
      copies += node == home ? 0 : 1;
    } else {
      copies += std::popcount(guess_ & beside) + std::popcount(guess_ & ~bit_of(home));
    }
    return copies;
  }

  /// As choose_pivot() does.
  int pivot_node(int home) const {
    using Merit = std::tuple<double, double, float, bool, int>;
    const auto merit = [&](int node) {
      return Merit{-copies_by(node, home), score_[as_index(node)], gate_[as_index(node)],
                   node == home, -node};
    };
    Merit best = merit(home);
    for_each_bit(visited_[0] & ~bit_of(home),
                 [&](int node) { best = std::max(best, merit(node)); });
    return -std::get<4>(best);
  }

  void star(TravelPhase phase, bool out, int centre, Nodes nodes, double weight) {
    Traffic::Phase& counted = traffic_.phases.at(static_cast<std::size_t>(phase));
    auto& hub = out ? counted.egress : counted.ingress;
    auto& leaves = out ? counted.ingress : counted.egress;
    const Nodes away = nodes & ~bit_of(centre);
    hub[as_index(centre)] += weight * std::popcount(away);
    for_each_bit(away, [&](int node) { leaves[as_index(node)] += weight; });
  }

  /// Rows inside nodes, between what comes from other nodes and the experts' ranks.
  void add_intra(TravelPhase phase, int centre, int home, std::span<const int> ranks,
                 double weight) {
    double rows = 0;
    for (const int rank : ranks) {
      const int node = topology_.node(rank);
      const int hub = node == topology_.node(centre) ? centre : topology_.rail(node, home);
      rows += hub == rank ? 0 : weight;
    }
    traffic_.phases.at(static_cast<std::size_t>(phase)).intra += rows;
  }

  void add(int home, double weight) {
    const int at = topology_.node(home);
    const int to = pivots_ ? pivot_node(at) : at;
    const int pivot = to == at ? home : topology_.rail(to, home);
    star(TravelPhase::a_dispatch, true, at, visited_[0], weight);
    star(TravelPhase::a_combine, false, to, visited_[0], weight);
    star(TravelPhase::b_dispatch, true, to, visited_[1], weight);
    star(TravelPhase::b_combine, false, at, visited_[1], weight);
    if (topology_.nodes() < topology_.ranks()) {
      add_intra(TravelPhase::a_dispatch, home, home, ranks_[0], weight);
      add_intra(TravelPhase::a_combine, pivot, home, ranks_[0], weight);
      add_intra(TravelPhase::b_dispatch, pivot, home, ranks_[1], weight);
      add_intra(TravelPhase::b_combine, home, home, ranks_[1], weight);
    }
    if (visited_[1] == 0 && to != at) {
      star(TravelPhase::b_combine, false, at, bit_of(to), weight);
    }
    if (groups_ == 2) {
      traffic_.pivots[as_index(pivot)] += weight;
    }
  }

  const LayerTrace& layer_;
  const SingleReplicas& placed_;
  const Topology& topology_;
  const TrafficOptions& options_;
  std::size_t groups_;
  bool pivots_;
  bool guessed_;
  std::vector<int> node_of_;  // [experts]
  Traffic traffic_;
  // Of a token:
  std::array<Nodes, 2> visited_{};
  std::array<std::vector<int>, 2> ranks_;  // distinct
  Nodes guess_ = 0;
  std::vector<double> score_;  // [nodes]
  std::vector<float> gate_;    // [nodes]
};

}  // namespace

Traffic count_node_traffic(const LayerTrace& layer, const SingleReplicas& placed,
                           const Topology& topology, const TrafficOptions& options) {
  return NodeTraffic(layer, placed, topology, options).count();
}

}  // namespace cartesian
