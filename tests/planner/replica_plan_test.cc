// Plans with room for replicas: no worse than without them, and within their budget.

#include "planner/replica_plan.h"

#include <gtest/gtest.h>

#include "base/index.h"
#include "planner/plan.h"
#include "planner/starts.h"
#include "planner/synthetic_trace.h"

namespace cartesian::test {
namespace {

/// Choices that have nothing to do with each other: what seems to save in a few tokens does not in
/// the others.
RoutingTrace independent_choices(std::int64_t tokens) {
  return make_synthetic_trace(
      {.experts = 256, .tokens = tokens, .tokens_per_step = 100'000'000'000}, 1);
}

TEST(ReplicaPlanTest, NoWorseThanWhatItStartsFrom) {
  const RoutingTrace trace = independent_choices(4096);
  const LayerTrace layer = layers_of(trace)[0];
  const Topology topology = Topology::from_node_sizes(std::vector<int>(64, 1), 64);
  const CoActivation all(layer);
  const NodeLimits limits{.slots = std::vector<int>(64, 9),
                          .load = std::vector<double>(64, 1.1 * 4 * 4096 / 64)};
  Partition partition(layer, visit_costs(topology, Flow::pivot, 2));
  partition.assign(balanced_start(all.loads(), limits));
  improve(partition, limits, {.work = 500'000});
  const std::vector<int> nodes = partition.assignment();
  const auto copies = [&](std::vector<NodeSet> sets) {
    return ReplicaCosts(layer, topology, limits, all.loads(), std::move(sets),
                        {.routes = {.sample = layer.tokens}})
        .copies();
  };
  std::vector<NodeSet> start;
  for (const int node : nodes) {
    start.push_back(node_bit(node));
  }
  const double before = copies(start);
  for (const std::int64_t work : {0, 50'000, 200'000}) {
    const auto slots =
        plan_replicas(layer, topology, limits, all, nodes, {.search = {.work = work}}).slots;
    std::vector<NodeSet> planned(start.size());
    for (std::size_t node = 0; node < slots.size(); ++node) {
      EXPECT_LE(static_cast<int>(slots[node].size()), limits.slots[node]);
      for (const Slot& slot : slots[node]) {
        planned[as_index(slot.expert)] |= node_bit(static_cast<int>(node));
      }
    }
    EXPECT_LE(copies(planned), before) << work;
  }
}

/// Experts in order, as many on every node.
std::vector<int> spread(int experts, int nodes) {
  std::vector<int> on(as_index(experts));
  for (int expert = 0; expert < experts; ++expert) {
    on[as_index(expert)] = expert * nodes / experts;
  }
  return on;
}

/// Whatever there is to look at: comparing and what a search has begun come on top.
TEST(ReplicaPlanTest, WithinTheBudget) {
  const auto work_over_budget = [](const RoutingTrace& trace, int nodes, int slots, double load) {
    constexpr std::int64_t kWork = 600'000;
    const LayerTrace layer = layers_of(trace)[0];
    const Topology topology =
        Topology::from_node_sizes(std::vector<int>(as_index(nodes), 1), nodes);
    const CoActivation all(layer);
    const NodeLimits limits{.slots = std::vector<int>(as_index(nodes), slots),
                            .load = std::vector<double>(as_index(nodes), load)};
    const ReplicatedSlots planned = plan_replicas(
        layer, topology, limits, all, spread(all.experts(), nodes), {.search = {.work = kWork}});
    return static_cast<double>(planned.work) / static_cast<double>(kWork);
  };
  EXPECT_LE(work_over_budget(independent_choices(1024), 64, 9, 1.1 * 4 * 1024 / 64), 2);
  EXPECT_LE(work_over_budget(independent_choices(16384), 64, 9, 1.1 * 4 * 16384 / 64), 2);
  EXPECT_LE(work_over_budget(independent_choices(4096), 2, 300, 1.1 * 4 * 4096 / 2), 2);
  EXPECT_LE(work_over_budget(make_synthetic_trace({.experts = 256, .tokens = 0}, 1), 2, 300, 1), 2);
}

TEST(ReplicaPlanTest, NoneOnOneNode) {
  const Placement placement = plan_placement(independent_choices(1024), uniform_cluster(1, 8),
                                             {.redundancy = 0.25, .time_budget_s = 0.01});
  for (int expert = 0; expert < 256; ++expert) {
    EXPECT_EQ(placement.replicas(0, 0, expert).size(), 1U);
  }
}

/// Where no token was sampled there is work in trying alone, and it ends.
TEST(ReplicaPlanTest, TriesCountAsWork) {
  const RoutingTrace trace = make_synthetic_trace({.experts = 256, .tokens = 0}, 1);
  const LayerTrace layer = layers_of(trace)[0];
  const Topology topology = Topology::from_node_sizes(std::vector<int>{1, 1}, 2);
  const CoActivation all(layer);
  const NodeLimits limits{.slots = {300, 300}, .load = {1, 1}};
  std::vector<NodeSet> sets(512);
  for (std::size_t expert = 0; expert < sets.size(); ++expert) {
    sets[expert] = node_bit(static_cast<int>(expert) % 2);
  }
  ReplicaCosts costs(layer, topology, limits, all.loads(), sets, {});
  constexpr std::int64_t kWork = 1'500'000;
  EXPECT_LE(place_replicas(costs, all, {.work = kWork}), kWork + kWork / 10);
}

}  // namespace
}  // namespace cartesian::test
