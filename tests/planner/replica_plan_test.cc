// Plans with room for replicas: no worse than without them, and within their budget.

#include "planner/replica_plan.h"

#include <gtest/gtest.h>

#include <ctime>

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
        plan_replicas(layer, topology, limits, all, nodes, {.search = {.work = work}});
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

/// Seconds of the processor.
double planning(const RoutingTrace& trace, const Cluster& cluster, const PlanOptions& options) {
  const std::clock_t start = std::clock();
  plan_placement(trace, cluster, options);
  return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

/// About as long as without replicas, whatever there is to look at.
TEST(ReplicaPlanTest, WithinTheBudget) {
  const RoutingTrace nothing = make_synthetic_trace({.experts = 256, .tokens = 0}, 1);
  const RoutingTrace trace = independent_choices(1024);
  const double without = planning(trace, uniform_cluster(64, 1), {.time_budget_s = 0.25});
  EXPECT_LE(planning(trace, uniform_cluster(64, 1), {.redundancy = 0.05, .time_budget_s = 0.25}),
            4 * without);
  EXPECT_LE(planning(trace, uniform_cluster(1, 8), {.redundancy = 0.25, .time_budget_s = 0.25}),
            4 * without);
  EXPECT_LE(planning(nothing, uniform_cluster(2, 1), {.slots = 300, .time_budget_s = 0.25}),
            4 * without);
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
  const double a_plan =
      planning(independent_choices(1024), uniform_cluster(64, 1), {.time_budget_s = 0.25});
  const std::clock_t start = std::clock();
  place_replicas(costs, all, {.work = 1'500'000});  // as much
  EXPECT_LE(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 4 * a_plan);
}

}  // namespace
}  // namespace cartesian::test
