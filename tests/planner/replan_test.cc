// Plans as wholes: from where experts are while training runs, within slots and loads, whatever the
// cluster.

#include "planner/replan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/index.h"
#include "planner/synthetic_trace.h"
#include "planner/traffic.h"
#include "tests/planner/expect_slots.h"
#include "tests/support/expect_error.h"

namespace cartesian::test {
namespace {

Cluster cluster_of(const std::vector<int>& node_sizes) {
  Cluster cluster = uniform_cluster(1, 1);
  cluster.topology =
      Topology::from_node_sizes(node_sizes, std::reduce(node_sizes.begin(), node_sizes.end()));
  return cluster;
}

double copies(const RoutingTrace& trace, const Cluster& cluster, const Placement& placement,
              Flow flow = Flow::pivot) {
  double sum = 0;
  const std::vector<LayerTrace> layers = layers_of(trace);
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    sum += count_traffic(layers[layer], static_cast<int>(layer), placement, cluster.topology,
                         {.flow = flow, .rule = PivotRule::oracle})
               .copies();
  }
  return sum;
}

template <class Visit>
void for_each_expert(const Placement& placement, Visit visit) {
  for (int layer = 0; layer < placement.shape().layers; ++layer) {
    for (int group = 0; group < placement.shape().groups; ++group) {
      for (int expert = 0; expert < placement.shape().experts; ++expert) {
        visit(layer, group, expert);
      }
    }
  }
}

/// Experts that are on another rank.
int moved(const Placement& now, const Placement& was) {
  int count = 0;
  for_each_expert(now, [&](int layer, int group, int expert) {
    count +=
        std::ranges::equal(now.replicas(layer, group, expert), was.replicas(layer, group, expert))
            ? 0
            : 1;
  });
  return count;
}

/// Every rank is renamed.
Placement renamed(const Placement& placement, const std::vector<int>& name) {
  std::vector<std::vector<int>> replicas;
  for_each_expert(placement, [&](int layer, int group, int expert) {
    auto& ranks = replicas.emplace_back();
    for (const int rank : placement.replicas(layer, group, expert)) {
      ranks.push_back(name[as_index(rank)]);
    }
    std::ranges::sort(ranks);
  });
  return {placement.shape(), replicas};
}

/// As if some of A's topics were about something else: their experts have other names.
RoutingTrace drifted(RoutingTrace trace) {
  for (RoutingTrace::SubLayer& sub_layer : trace.sub_layers) {
    for (std::int16_t& id : sub_layer.ids) {
      const bool other = sub_layer.group == 0 && id >= 0 && id / 2 % 2 == 1;
      id = static_cast<std::int16_t>(other ? id ^ 1 : id);
    }
  }
  return trace;
}

const SyntheticTraceSpec kTopics{
    .experts = 16, .choices = 2, .tokens = 400, .cluster = 4, .strength = 0.9};

class ReplanTest : public testing::TestWithParam<std::vector<int>> {
 protected:
  Cluster cluster_ = cluster_of(GetParam());
  PlanOptions options_{.load_cap = 100, .time_budget_s = 0.015};

  Placement replan(const RoutingTrace& trace, const Placement& running, double horizon) const {
    PlanOptions options = options_;
    options.running = &running;
    options.horizon_steps = horizon;
    return plan_placement(trace, cluster_, options);
  }
};

TEST_P(ReplanTest, NothingMovesOnTheSameTrace) {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    const RoutingTrace trace = make_synthetic_trace(kTopics, seed);
    for (const double cap : {1.2, 100.0}) {
      options_.load_cap = cap;
      const Placement running = plan_placement(trace, cluster_, options_);
      EXPECT_EQ(moved(replan(trace, running, 100), running), 0) << "seed " << seed;
    }
  }
}

TEST_P(ReplanTest, NothingMovesIfItCannotPay) {
  const RoutingTrace trace = make_synthetic_trace(kTopics, 4);
  const Placement linear = Placement::linear(placement_shape(trace, cluster_.topology.ranks()),
                                             cluster_.topology.ranks());
  EXPECT_EQ(moved(replan(trace, linear, 1e-6), linear), 0);
  const Placement planned = plan_placement(trace, cluster_, options_);
  EXPECT_EQ(moved(replan(drifted(trace), planned, 1e-6), planned), 0);
}

TEST_P(ReplanTest, MovesPay) {
  const RoutingTrace before = make_synthetic_trace(kTopics, 5);
  const Placement running = plan_placement(before, cluster_, options_);
  const RoutingTrace trace = drifted(before);
  const double stays = copies(trace, cluster_, running);
  const double anew = copies(trace, cluster_, plan_placement(trace, cluster_, options_));
  double last = stays + 1e-9;
  for (const double horizon : {1.0, 30.0, 1e9}) {
    const Placement planned = replan(trace, running, horizon);
    const double now = copies(trace, cluster_, planned);
    // Copies that moving one is worth: 9 h d bytes of it, 2 * 4 d of a copy there and back.
    const double worth = 9 * 4 * static_cast<double>(trace.expert_width) / 8 / horizon;
    int moves = 0;  // to other nodes
    for_each_expert(planned, [&](int layer, int group, int expert) {
      const auto node = [&](const Placement& of) {
        return cluster_.topology.node(of.replicas(layer, group, expert)[0]);
      };
      moves += node(planned) != node(running) ? 1 : 0;
    });
    EXPECT_LE(now + worth * moves, stays + 1e-6) << horizon << " steps";
    EXPECT_LE(now, last * 1.001) << horizon << " steps";
    last = now;
  }
  EXPECT_LT(last, 0.9 * stays);
  EXPECT_LE(last, 1.02 * anew);
}

TEST_P(ReplanTest, WhatStaysOnItsNodeStaysOnItsRank) {
  const RoutingTrace before = make_synthetic_trace(kTopics, 6);
  const Placement running = plan_placement(before, cluster_, options_);
  const Placement planned = replan(drifted(before), running, 1e9);
  EXPECT_GT(moved(planned, running), 0);
  for_each_expert(planned, [&](int layer, int group, int expert) {
    const int rank = planned.replicas(layer, group, expert)[0];
    const int was = running.replicas(layer, group, expert)[0];
    EXPECT_TRUE(rank == was || cluster_.topology.node(rank) != cluster_.topology.node(was));
  });
}

INSTANTIATE_TEST_SUITE_P(Clusters, ReplanTest,
                         testing::Values(std::vector<int>{1, 1, 1, 1}, std::vector<int>{2, 2, 2, 2},
                                         std::vector<int>{4, 4}, std::vector<int>{1, 3, 4}));

TEST(ReplanEdges, NodesMayHaveOtherNames) {
  const Cluster cluster = cluster_of({2, 2, 2, 2});
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    const RoutingTrace trace = make_synthetic_trace(kTopics, seed);
    PlanOptions options{.load_cap = 1.3, .time_budget_s = 0.015};
    const Placement running =
        renamed(plan_placement(trace, cluster, options), {6, 7, 2, 3, 0, 1, 4, 5});
    options.running = &running;
    EXPECT_EQ(moved(plan_placement(trace, cluster, options), running), 0);
  }
}

TEST(ReplanEdges, RunningPlacementOfAnotherShape) {
  const RoutingTrace trace = make_synthetic_trace(kTopics, 1);
  const PlacementShape shape = placement_shape(trace, 4);
  for (const PlacementShape& other : {PlacementShape{2, 2, 16, 4}, PlacementShape{1, 1, 16, 4},
                                      PlacementShape{1, 2, 8, 4}, PlacementShape{1, 2, 16, 2}}) {
    const Placement running = Placement::linear(other, other.ranks);
    ASSERT_NE(other, shape);
    expect_error<ConfigError>(
        [&] {
          plan_placement(trace, cluster_of({1, 1, 1, 1}), {.running = &running});
        },
        {"running placement"});
  }
}

/// There were more slots when it was planned.
TEST(ReplanEdges, RunningReplicasThatHaveNoSlots) {
  const Cluster cluster = cluster_of({2, 2});
  const RoutingTrace trace = make_synthetic_trace({.tokens = 4000, .skew = 0.5}, 2);
  PlanOptions options{.slots = 8, .time_budget_s = 0.02};
  const Placement running = plan_placement(trace, cluster, options);
  std::size_t replicas = 0;
  for_each_expert(running, [&](int layer, int group, int expert) {
    replicas += running.replicas(layer, group, expert).size();
  });
  ASSERT_GT(replicas, 4U * 7U);
  for (const int slots : {4, 5, 7}) {
    options.slots = slots;
    options.running = &running;
    expect_slots(plan_placement(trace, cluster, options), slots);
  }
}

/// Every expert everywhere, in slots for one replica of each: whatever a node keeps, it has.
TEST(ReplanEdges, DroppingReplicasIsAMove) {
  const RoutingTrace trace = make_synthetic_trace({.experts = 4}, 3);
  const Cluster cluster = cluster_of({1, 1});
  const PlacementShape shape = placement_shape(trace, 2);
  const Placement running(shape, std::vector<std::vector<int>>(8, {0, 1}));
  for (const double horizon : {1e-6, 1e6}) {
    const Replan replan = replan_placement(
        trace, cluster, {.time_budget_s = 0.02, .running = &running, .horizon_steps = horizon});
    EXPECT_TRUE(replan.must);
    EXPECT_TRUE(replan.moves);
    EXPECT_EQ(replan.migration.replicas, 0);
    EXPECT_EQ(replan.migration.dropped, 8);
    EXPECT_EQ(replan.migration.inter_bytes, 0);
    expect_slots(replan.placement, 4);
  }
}

/// Experts that run on two nodes of four may stay on either at no cost, however dear moving is; to
/// the other nodes, where the rest of their topics is, they would move.
TEST(ReplanEdges, ReplicasThatStayDoNotMove) {
  const RoutingTrace trace =
      make_synthetic_trace({.experts = 8, .tokens = 400, .cluster = 2, .strength = 1}, 3);
  const Cluster cluster = cluster_of({1, 1, 1, 1});
  std::vector<std::vector<int>> ranks;
  for (int expert = 0; expert < 16; ++expert) {
    ranks.push_back(expert % 8 < 4 ? std::vector<int>{0, 1} : std::vector<int>{2, 3});
  }
  const Placement running(placement_shape(trace, 4), ranks);
  const PlanOptions options{
      .load_cap = 100, .time_budget_s = 0.05, .running = &running, .horizon_steps = 1e-9};
  const Placement planned = plan_placement(trace, cluster, options);
  EXPECT_EQ(plan_migration(running, planned, cluster, 1).replicas, 0);
  expect_slots(planned, 4);
}

/// Replicas whose gradients cost more than they save, in slots that hold them.
TEST(ReplanEdges, ReplicasAreDroppedWhereTheStepGetsShorter) {
  const RoutingTrace trace =
      make_synthetic_trace({.experts = 4, .tokens = 500, .expert_width = 4096}, 3);
  const Cluster cluster = cluster_of({1, 1});
  const Placement running(placement_shape(trace, 2), std::vector<std::vector<int>>(8, {0, 1}));
  const PlanOptions options{
      .slots = 8, .tokens_per_step = 10, .time_budget_s = 0.02, .running = &running};
  const Replan replan = replan_placement(trace, cluster, options);
  EXPECT_FALSE(replan.must);
  EXPECT_TRUE(replan.moves);
  EXPECT_EQ(replan.migration.replicas, 0);
  EXPECT_GT(replan.migration.dropped, 0);
  EXPECT_LT(replan.after().time.total(), replan.before.time.total());
}

TEST(ReplanEdges, ThePlacementThatRunsIsNoMove) {
  const RoutingTrace trace = make_synthetic_trace(kTopics, 3);
  const Cluster cluster = cluster_of({1, 1});
  PlanOptions options{.time_budget_s = 0.015};
  const Placement running = plan_placement(trace, cluster, options);
  options.running = &running;
  const Replan replan = replan_placement(trace, cluster, options);
  EXPECT_FALSE(replan.moves);
  EXPECT_EQ(replan.migration.dropped, 0);
  EXPECT_EQ(replan.placement, running);
}

}  // namespace
}  // namespace cartesian::test
