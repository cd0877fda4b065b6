// Whole plans against the optimum, found by exhaustive search: small cases of every kind.

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "base/index.h"
#include "planner/plan_report.h"
#include "planner/synthetic_trace.h"
#include "planner/traffic.h"
#include "tests/planner/exhaustive.h"

namespace cartesian::test {
namespace {

struct Case {
  const char* name;
  SyntheticTraceSpec spec;
  std::vector<int> node_sizes;
  Flow flow = Flow::pivot;
  double cap = 1.3;
};

void PrintTo(const Case& given, std::ostream* out) { *out << given.name; }

Cluster cluster_of(const std::vector<int>& node_sizes) {
  Cluster cluster = uniform_cluster(1, 1);
  int ranks = 0;
  for (const int size : node_sizes) {
    ranks += size;
  }
  cluster.topology = Topology::from_node_sizes(node_sizes, ranks);
  return cluster;
}

/// [experts of A, then of B]: of the first layer.
std::vector<int> nodes_of(const Placement& placement, const Topology& topology) {
  std::vector<int> nodes;
  for (int group = 0; group < placement.shape().groups; ++group) {
    for (int expert = 0; expert < placement.shape().experts; ++expert) {
      const auto replicas = placement.replicas(0, group, expert);
      EXPECT_EQ(replicas.size(), 1U);
      nodes.push_back(topology.node(replicas[0]));
    }
  }
  return nodes;
}

PlanOptions options_of(const Case& given) {
  return {.objective = Objective::copies,
          .flow = given.flow,
          .load_cap = given.cap,
          .load_margin = 0,
          .time_budget_s = 0.05};
}

Room room_of(const LayerTrace& layer, const Case& given, const Cluster& cluster) {
  const PlacementShape shape{.layers = 1,
                             .groups = static_cast<int>(layer.groups.size()),
                             .experts = layer.experts,
                             .ranks = cluster.topology.ranks()};
  return make_room(layer, cluster.topology, given.flow, slots_per_rank(shape, options_of(given)),
                   given.cap);
}

/// The cost of a plan; checks that it keeps slots and loads.
double planned_cost(const RoutingTrace& trace, const Case& given) {
  const Cluster cluster = cluster_of(given.node_sizes);
  const LayerTrace layer = layers_of(trace)[0];
  const Room room = room_of(layer, given, cluster);
  const std::vector<int> nodes =
      nodes_of(plan_placement(trace, cluster, options_of(given)), cluster.topology);
  std::vector<int> size(room.slots.size());
  std::vector<double> load(room.slots.size());
  for (std::size_t expert = 0; expert < nodes.size(); ++expert) {
    ++size[as_index(nodes[expert])];
    const auto& ids = layer.groups[expert / as_index(layer.experts)].ids;
    load[as_index(nodes[expert])] += static_cast<double>(
        std::ranges::count(ids, static_cast<std::int16_t>(expert % as_index(layer.experts))));
  }
  for (std::size_t node = 0; node < size.size(); ++node) {
    EXPECT_LE(size[node], room.slots[node]);
    EXPECT_LE(load[node], room.load[node] * (1 + 1e-9)) << "the cap is one that can be kept";
  }
  return cost_of(layer, room, nodes);
}

class OptimumTest : public testing::TestWithParam<Case> {};

TEST_P(OptimumTest, IsFound) {
  const Cluster cluster = cluster_of(GetParam().node_sizes);
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    const RoutingTrace trace = make_synthetic_trace(GetParam().spec, seed);
    const LayerTrace layer = layers_of(trace)[0];
    const double planned = planned_cost(trace, GetParam());
    const double least =
        least_cost_below(planned + 1e-3, layer, room_of(layer, GetParam(), cluster));
    EXPECT_NEAR(planned, least, 1e-4) << "seed " << seed;
  }
}

TEST_P(OptimumTest, NamesOfExpertsAndOrderOfNodesMeanNothing) {
  RoutingTrace trace = make_synthetic_trace(GetParam().spec, 5);
  const double planned = planned_cost(trace, GetParam());
  for (RoutingTrace::SubLayer& sub_layer : trace.sub_layers) {
    const int step = sub_layer.group == 0 ? 5 : 11;
    for (auto* ids : {&sub_layer.ids, &sub_layer.speculative_ids}) {
      for (std::int16_t& id : *ids) {
        id = static_cast<std::int16_t>(id < 0 ? id : (step * id + 1) % trace.experts);
      }
    }
  }
  Case reversed = GetParam();
  std::ranges::reverse(reversed.node_sizes);
  EXPECT_NEAR(planned_cost(trace, reversed), planned, 1e-4);
}

/// What is minimised is what messages need, but for a constant.
TEST_P(OptimumTest, CostsAreCopies) {
  const RoutingTrace trace = make_synthetic_trace(GetParam().spec, 7);
  const Cluster cluster = cluster_of(GetParam().node_sizes);
  const LayerTrace layer = layers_of(trace)[0];
  const Room room = room_of(layer, GetParam(), cluster);
  const Placement placement = plan_placement(trace, cluster, options_of(GetParam()));
  const double copies = count_traffic(layer, 0, placement, cluster.topology,
                                      {.flow = GetParam().flow, .rule = PivotRule::oracle})
                            .copies();
  const double saved = room.meet * static_cast<double>(trace.tokens);
  EXPECT_NEAR(copies, cost_of(layer, room, nodes_of(placement, cluster.topology)) - saved, 1e-6);
}

const std::vector<int> kTwo{1, 1};
const std::vector<int> kFour{1, 1, 1, 1};

INSTANTIATE_TEST_SUITE_P(
    Cases, OptimumTest,
    testing::Values(
        Case{"two", {.tokens = 100}, kTwo},
        Case{"two clusters", {.tokens = 100, .cluster = 2}, kTwo},
        Case{"two skewed ragged", {.choices = 3, .skew = 0.5, .ragged = true}, kTwo},
        Case{"two home", {.tokens = 100, .cluster = 4}, kTwo, Flow::home},
        Case{"two tight", {.tokens = 100, .cluster = 2, .skew = 0.4}, kTwo, Flow::pivot, 1.08},
        Case{"four", {.tokens = 60}, kFour},
        Case{"four clusters", {.tokens = 100, .cluster = 2}, kFour},
        Case{"four weak clusters", {.tokens = 60, .cluster = 4, .strength = 0.5}, kFour},
        Case{"four skewed", {.tokens = 80, .cluster = 2, .skew = 0.5}, kFour},
        Case{"four ragged", {.choices = 3, .tokens = 80, .skew = 0.3, .ragged = true}, kFour},
        Case{"four home", {.tokens = 60, .cluster = 2}, kFour, Flow::home},
        Case{"four without a cap", {.tokens = 80, .skew = 0.8}, kFour, Flow::pivot, 100},
        Case{"one group", {.groups = 1, .experts = 12, .tokens = 100, .cluster = 3}, kFour},
        Case{"one group of three", {.groups = 1, .experts = 16, .choices = 3, .tokens = 40}, kFour},
        Case{"uneven", {.tokens = 80, .cluster = 2}, {1, 3}},
        Case{"uneven three", {.tokens = 80, .cluster = 2, .skew = 0.3}, {1, 2, 1}},
        Case{"room to spare", {.experts = 7, .tokens = 60, .cluster = 2}, kFour, Flow::pivot, 1.6}),
    [](const testing::TestParamInfo<Case>& given) {
      std::string name = given.param.name;
      std::ranges::replace(name, ' ', '_');
      return name;
    });

/// Branch and bound itself, against every assignment of a case that is small enough.
TEST(Exhaustive, IsTheLeastOfAll) {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    const RoutingTrace trace =
        make_synthetic_trace({.experts = 4, .tokens = 50, .ragged = true}, seed);
    const LayerTrace layer = layers_of(trace)[0];
    const Room room = make_room(layer, cluster_of({1, 2, 1}).topology, Flow::pivot, 2, 1.4);
    double least = std::numeric_limits<double>::infinity();
    std::vector<int> nodes(8);
    for (int code = 0; code < 6561; ++code) {
      std::vector<int> size(3);
      std::vector<double> load(3);
      for (std::size_t expert = 0, rest = as_index(code); expert < 8; ++expert, rest /= 3) {
        nodes[expert] = static_cast<int>(rest % 3);
        ++size[rest % 3];
        load[rest % 3] += static_cast<double>(std::ranges::count(
            layer.groups[expert / 4].ids, static_cast<std::int16_t>(expert % 4)));
      }
      bool fits = true;
      for (std::size_t node = 0; node < 3; ++node) {
        fits = fits && size[node] <= room.slots[node] && load[node] <= room.load[node];
      }
      least = fits ? std::min(least, cost_of(layer, room, nodes)) : least;
    }
    EXPECT_NEAR(least_cost_below(1e9, layer, room), least, 1e-6);
  }
}

/// Of every placement of 3 + 3 experts on three ranks, the fewest copies that any needs.
double fewest_copies(const RoutingTrace& trace, const Cluster& cluster, Flow flow, int slots) {
  const LayerTrace layer = layers_of(trace)[0];
  const PlacementShape shape = placement_shape(trace, 3);
  double fewest = std::numeric_limits<double>::infinity();
  for (int code = 0; code < 729; ++code) {
    std::vector<std::vector<int>> ranks;
    std::vector<int> held(3);
    for (int expert = 0, rest = code; expert < 6; ++expert, rest /= 3) {
      ranks.push_back({rest % 3});
      ++held[as_index(rest % 3)];
    }
    if (std::ranges::max(held) <= slots) {
      const Traffic traffic = count_traffic(layer, 0, Placement(shape, ranks), cluster.topology,
                                            {.flow = flow, .rule = PivotRule::oracle});
      fewest = std::min(fewest, traffic.copies_per_token());
    }
  }
  return fewest;
}

/// Tokens with choices in both groups, in A only, in B only, in none.
TEST(Exhaustive, SomePlacementReachesNoLessThanTheBound) {
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    RoutingTrace trace = make_synthetic_trace({.experts = 3, .tokens = 40, .ragged = true}, seed);
    for (std::int64_t token = 0; token < trace.tokens; ++token) {
      for (std::size_t group = 0; group < 2; ++group) {
        RoutingTrace::SubLayer& sub_layer = trace.sub_layers[group];
        if (seed % 4 == 0 ? group == 1 : (token + as_index(seed)) % 4 == as_index(group)) {
          std::fill_n(sub_layer.ids.begin() + 2 * token, 2, std::int16_t{-1});
          std::fill_n(sub_layer.gates.begin() + 2 * token, 2, 0.0F);
        }
      }
    }
    for (const std::vector<int>& nodes : {std::vector<int>{1, 1, 1}, {1, 2}}) {
      const Cluster cluster = cluster_of(nodes);
      for (const Flow flow : {Flow::home, Flow::pivot}) {
        for (const int slots : {2, 3, 6}) {
          EXPECT_LE(*least_copies(trace, cluster, {.flow = flow, .slots = slots}),
                    fewest_copies(trace, cluster, flow, slots) + 1e-9)
              << "seed " << seed << ", " << nodes.size() << " nodes, " << slots << " slots";
        }
      }
    }
  }
}

/// Each token one of A's experts and none of B's: every placement needs as many copies.
TEST(Exhaustive, TheBoundIsReachedWhereTokensChooseOne) {
  RoutingTrace trace = make_synthetic_trace({.experts = 3, .choices = 1, .tokens = 30}, 1);
  std::ranges::fill(trace.sub_layers[1].ids, std::int16_t{-1});
  const Cluster cluster = cluster_of({1, 1, 1});
  EXPECT_NEAR(*least_copies(trace, cluster, {}), 4.0 / 3, 1e-9);
  EXPECT_NEAR(fewest_copies(trace, cluster, Flow::pivot, 2), 4.0 / 3, 1e-9);
}

}  // namespace
}  // namespace cartesian::test
