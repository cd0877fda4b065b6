// Traffic is what a simulation counts message by message: copies by node and phase, rows inside
// nodes, experts' and pivots' work, with replicas and several ranks on a node.

#include "tests/planner/message_simulation.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/index.h"
#include "base/random.h"
#include "planner/plan.h"
#include "planner/step_time.h"
#include "planner/synthetic_trace.h"
#include "planner/traffic.h"

namespace cartesian::test {
namespace {

struct Setting {
  std::vector<int> node_sizes;
  int replicas;  ///< most of an expert
  SyntheticTraceSpec spec;
};

Topology topology_of(const std::vector<int>& node_sizes) {
  return Topology::from_node_sizes(node_sizes, std::reduce(node_sizes.begin(), node_sizes.end()));
}

/// Every expert on one to `most` ranks, any of them.
Placement scattered(const RoutingTrace& trace, int ranks, int most) {
  const PlacementShape shape = placement_shape(trace, ranks);
  const std::uint64_t key = random_key(9, "scattered");
  std::vector<std::vector<int>> replicas;
  for (int i = 0; i < shape.layers * shape.groups * shape.experts; ++i) {
    std::set<int> on;
    const auto first = 16 * static_cast<std::uint64_t>(i);
    const std::uint64_t count = 1 + random_bits(key, first) % static_cast<std::uint64_t>(most);
    for (std::uint64_t draw = 1; draw <= count; ++draw) {
      on.insert(
          static_cast<int>(random_bits(key, first + draw) % static_cast<std::uint64_t>(ranks)));
    }
    replicas.emplace_back(on.begin(), on.end());
  }
  return {shape, std::move(replicas)};
}

template <class Id>
std::vector<int> chosen(std::span<const Id> ids) {
  std::vector<int> experts;
  std::ranges::copy_if(ids, std::back_inserter(experts), [](int id) { return id >= 0; });
  return experts;
}

class Counter {
 public:
  Counter(const LayerTrace& layer, const Placement& placement, const Topology& topology)
      : layer_(layer), placement_(placement), topology_(topology) {}

  Traffic count(Flow flow, PivotRule rule) {
    Traffic traffic;
    for (Traffic::Phase& phase : traffic.phases) {
      phase.egress.resize(as_index(topology_.nodes()));
      phase.ingress.resize(as_index(topology_.nodes()));
    }
    traffic.expert_rows.assign(layer_.groups.size(),
                               std::vector<double>(as_index(topology_.ranks())));
    traffic.pivots.resize(as_index(topology_.ranks()));
    const bool two = layer_.groups.size() == 2;
    for (token_ = 0; token_ < layer_.tokens; ++token_) {
      SimulatedToken token{.flow = two || flow == Flow::flat ? flow : Flow::home,
                           .home = layer_.home[as_index(token_)],
                           .a = chosen(layer_.groups[0].of(token_)),
                           .gates = {},
                           .b = two ? chosen(layer_.groups[1].of(token_)) : std::vector<int>{},
                           .evidence = {}};
      const auto k = as_index(layer_.groups[0].choices);
      const auto gates = layer_.groups[0].gates.subspan(as_index(token_) * k, k);
      token.gates.assign(gates.begin(), gates.end());
      if (rule == PivotRule::oracle) {
        token.evidence = token.b;
      } else if (rule == PivotRule::speculative) {
        token.evidence = chosen(layer_.speculative.subspan(as_index(token_) * k, k));
      }
      add(simulate(token, placement_, topology_,
                   [&](const Dispatch& dispatch) { return replicas(dispatch); }),
          traffic);
    }
    return traffic;
  }

 private:
  /// As base/ chooses them, who must keep to the rules.
  std::vector<int> replicas(const Dispatch& dispatch) const {
    std::vector<std::int32_t> ranks(dispatch.experts.size());
    if (ranks.empty()) {
      return {};
    }
    choose_replicas({.layer = 0,
                     .group = dispatch.group,
                     .origin = dispatch.origin,
                     .home = dispatch.home,
                     .token = token_,
                     .experts = dispatch.experts},
                    placement_, topology_, ranks);
    const std::vector<std::set<int>> allowed = allowed_replicas(dispatch, placement_, topology_);
    std::vector<int> result;
    for (std::size_t i = 0; i < ranks.size(); ++i) {
      EXPECT_TRUE(allowed[i].contains(ranks[i]))
          << "token " << token_ << ", expert " << dispatch.experts[i] << " at " << ranks[i];
      result.push_back(allowed[i].size() == 1 ? *allowed[i].begin() : ranks[i]);
    }
    return result;
  }

  void add(const Journey& journey, Traffic& traffic) const {
    for (const Message& message : journey.messages) {
      Traffic::Phase& phase = traffic.phases.at(as_index(message.phase));
      const int from = topology_.node(message.from);
      const int to = topology_.node(message.to);
      if (from == to) {
        ++phase.intra;
      } else {
        ++phase.egress[as_index(from)];
        ++phase.ingress[as_index(to)];
      }
    }
    for (const int rank : journey.a_ranks) {
      ++traffic.expert_rows[0][as_index(rank)];
    }
    for (const int rank : journey.b_ranks) {
      ++traffic.expert_rows[1][as_index(rank)];
    }
    traffic.pivots[as_index(journey.pivot)] += layer_.groups.size() == 2 ? 1 : 0;
  }

  const LayerTrace& layer_;
  const Placement& placement_;
  const Topology& topology_;
  std::int64_t token_ = 0;
};

void expect_equal(const Traffic& counted, const Traffic& simulated, const std::string& what) {
  for (std::size_t phase = 0; phase < counted.phases.size(); ++phase) {
    const std::string where = fmt::format("{}, phase {}", what, phase);
    EXPECT_EQ(counted.phases.at(phase).egress, simulated.phases.at(phase).egress) << where;
    EXPECT_EQ(counted.phases.at(phase).ingress, simulated.phases.at(phase).ingress) << where;
    EXPECT_EQ(counted.phases.at(phase).intra, simulated.phases.at(phase).intra) << where;
  }
  EXPECT_EQ(counted.expert_rows, simulated.expert_rows) << what;
  EXPECT_EQ(counted.pivots, simulated.pivots) << what;
}

class MessageSimulationTest : public testing::TestWithParam<Setting> {};

TEST_P(MessageSimulationTest, CountsWhatTrafficCounts) {
  const Topology topology = topology_of(GetParam().node_sizes);
  RoutingTrace trace = make_synthetic_trace(GetParam().spec, 11);
  for (std::int64_t token = 0; token < trace.tokens; ++token) {
    trace.home.push_back(static_cast<std::int32_t>(token * 5 % topology.ranks()));
  }
  const LayerTrace layer = layers_of(trace)[0];
  Placement placement = scattered(trace, topology.ranks(), GetParam().replicas);
  const bool two = layer.groups.size() == 2;
  if (two) {
    placement =
        placement.with_pivot_scores(topology.nodes(), pivot_scores(trace, placement, topology));
  }
  const auto compare = [&](const Placement& given, Flow flow, PivotRule rule) {
    expect_equal(count_traffic(layer, 0, given, topology, {.flow = flow, .rule = rule}),
                 Counter(layer, given, topology).count(flow, rule),
                 fmt::format("{} {}", name_of(flow), name_of(rule)));
  };
  compare(placement, Flow::flat, PivotRule::oracle);
  compare(placement, Flow::home, PivotRule::oracle);
  compare(placement, Flow::pivot, PivotRule::oracle);
  if (two) {
    compare(placement, Flow::pivot, PivotRule::speculative);
    compare(placement, Flow::pivot, PivotRule::table);
    compare(placement.without_pivot_scores(), Flow::pivot, PivotRule::gate);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Settings, MessageSimulationTest,
    testing::Values(Setting{{2, 1, 3}, 1, {.choices = 3}}, Setting{{2, 1, 3}, 3, {.choices = 3}},
                    Setting{{4, 4, 4}, 2, {.experts = 16, .choices = 4, .prediction = 0.7}},
                    Setting{{1, 1, 1, 1, 1}, 2, {.choices = 4, .ragged = true}},
                    Setting{{2, 3}, 4, {.groups = 1, .choices = 3, .ragged = true}},
                    Setting{{5}, 2, {.choices = 2}}));

/// The ranks' numbers after the nodes have changed places: [old ranks].
std::vector<int> renumbered(const std::vector<int>& node_sizes, const std::vector<int>& order) {
  const Topology before = topology_of(node_sizes);
  std::vector<int> number(as_index(before.ranks()));
  int next = 0;
  for (const int node : order) {
    for (const int rank : before.ranks_of_node(node)) {
      number[as_index(rank)] = next++;
    }
  }
  return number;
}

std::vector<double> sorted(std::vector<double> values) {
  for (double& value : values) {  // sums in another order
    value = std::round(value * 1e6);
  }
  std::ranges::sort(values);
  return values;
}

TEST(NodeNames, MeanNothing) {
  struct Swap {
    std::vector<int> node_sizes;
    std::vector<int> order;
  };
  for (const Swap& swap : {Swap{{1, 1, 1, 1}, {2, 0, 3, 1}}, Swap{{2, 2, 2}, {2, 0, 1}},
                           Swap{{1, 2, 3}, {2, 0, 1}}, Swap{{3, 1}, {1, 0}}}) {
    std::vector<int> sizes;
    for (const int node : swap.order) {
      sizes.push_back(swap.node_sizes[as_index(node)]);
    }
    const Topology before = topology_of(swap.node_sizes);
    const Topology after = topology_of(sizes);
    const RoutingTrace trace = make_synthetic_trace({.choices = 3, .prediction = 0.8}, 12);
    const LayerTrace layer = layers_of(trace)[0];
    const Placement placement = scattered(trace, before.ranks(), 1);
    const std::vector<int> number = renumbered(swap.node_sizes, swap.order);
    std::vector<std::vector<int>> moved;
    for (int group = 0; group < 2; ++group) {
      for (int expert = 0; expert < 8; ++expert) {
        moved.push_back({number[as_index(placement.replicas(0, group, expert)[0])]});
      }
    }
    for (const Flow flow : {Flow::flat, Flow::home, Flow::pivot}) {
      const TrafficOptions options{.flow = flow, .rule = PivotRule::speculative};
      const Traffic one = count_traffic(layer, 0, placement, before, options);
      const Traffic other = count_traffic(layer, 0, {placement.shape(), moved}, after, options);
      EXPECT_NEAR(one.copies(), other.copies(), 1e-6);
      EXPECT_NEAR(worst_card(one), worst_card(other), 1e-9);
      EXPECT_NEAR(rank_imbalance(one), rank_imbalance(other), 1e-9);
      for (std::size_t phase = 0; phase < one.phases.size(); ++phase) {
        EXPECT_EQ(sorted(one.phases.at(phase).egress), sorted(other.phases.at(phase).egress));
        EXPECT_EQ(sorted(one.phases.at(phase).ingress), sorted(other.phases.at(phase).ingress));
        EXPECT_NEAR(one.phases.at(phase).intra, other.phases.at(phase).intra, 1e-6);
      }
      EXPECT_EQ(sorted(one.pivots), sorted(other.pivots));
    }
  }
}

}  // namespace
}  // namespace cartesian::test
