// Slots and loads of whole plans, on clusters and traces of every kind.

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "base/index.h"
#include "planner/dice.h"
#include "planner/plan.h"
#include "planner/plan_report.h"
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

/// Of the most loaded node and of the most loaded rank, over the mean.
struct Worst {
  double node = 1;
  double rank = 1;
};

/// Replicas of an expert are taken to share its choices evenly.
Worst worst_loads(const LayerTrace& layer, int index, const Placement& placement,
                  const Topology& topology) {
  std::vector<double> loads(as_index(topology.ranks()));
  for (std::size_t group = 0; group < layer.groups.size(); ++group) {
    for (const std::int16_t id : layer.groups[group].ids) {
      if (id >= 0) {
        const auto ranks = placement.replicas(index, static_cast<int>(group), id);
        for (const int rank : ranks) {
          loads[as_index(rank)] += 1 / static_cast<double>(ranks.size());
        }
      }
    }
  }
  const double mean = std::reduce(loads.begin(), loads.end()) / topology.ranks();
  if (mean == 0) {
    return {};
  }
  Worst worst{.node = 0, .rank = std::ranges::max(loads) / mean};
  for (int node = 0; node < topology.nodes(); ++node) {
    double load = 0;
    for (const int rank : topology.ranks_of_node(node)) {
      load += loads[as_index(rank)];
    }
    const auto ranks = static_cast<double>(topology.ranks_of_node(node).size());
    worst.node = std::max(worst.node, load / ranks / mean);
  }
  return worst;
}

std::vector<int> random_nodes(Dice& dice) {
  std::vector<int> sizes;
  const bool alike = dice.below(2) == 0;
  const int size = 1 + dice.below(4);
  for (int node = 1 + dice.below(6); node > 0; --node) {
    sizes.push_back(alike ? size : 1 + dice.below(4));
  }
  return sizes;
}

SyntheticTraceSpec random_spec(Dice& dice) {
  SyntheticTraceSpec spec;
  spec.layers = 1 + dice.below(2);
  spec.groups = 1 + dice.below(2);
  spec.experts = 1 + dice.below(24);
  spec.choices = 1 + dice.below(std::min(spec.experts, 4));
  spec.tokens = dice.below(6) == 0 ? dice.below(3) : 50 + dice.below(400);
  spec.cluster = dice.below(2) == 0 ? 0 : 1 + dice.below(spec.experts);
  spec.skew = dice.uniform();
  spec.ragged = dice.below(3) == 0;
  spec.prediction = dice.uniform();
  return spec;
}

PlanOptions random_options(Dice& dice) {
  PlanOptions options;
  options.flow = dice.below(2) == 0 ? Flow::pivot : Flow::home;
  options.load_cap = 1.02 + dice.uniform();
  options.redundancy = dice.below(2) == 0 ? 0 : dice.uniform();
  options.tokens_per_step = dice.below(2) == 0 ? 0 : 1e6;
  options.seed = as_index(dice.below(1000));
  options.time_budget_s = dice.below(3) == 0 ? 1e-6 * dice.below(10) : 0.003;
  return options;
}

TEST(PlanLimitsTest, WhateverTheClusterAndTheTrace) {
  for (std::uint64_t seed = 1; seed <= 25; ++seed) {
    SCOPED_TRACE(seed);
    Dice dice(seed);
    const Cluster cluster = cluster_of(random_nodes(dice));
    const RoutingTrace trace = make_synthetic_trace(random_spec(dice), seed);
    const RoutingTrace other = make_synthetic_trace(random_spec(dice), seed);
    const PlacementShape shape = placement_shape(trace, cluster.topology.ranks());
    PlanOptions options = random_options(dice);
    const Placement first = plan_placement(trace, cluster, options);
    expect_slots(first, slots_per_rank(shape, options));
    expect_slots(balanced_placement(trace, cluster, options), slots_per_rank(shape, options));
    options.threads = 2;
    EXPECT_EQ(plan_placement(trace, cluster, options), first);
    // From there, with other options.
    options = random_options(dice);
    options.running = &first;
    options.horizon_steps = dice.below(2) == 0 ? 1e-3 : 1e6;
    expect_slots(plan_placement(trace, cluster, options), slots_per_rank(shape, options));
  }
}

TEST(PlanLimitsTest, NoRankHasMoreSlotsThanThereAreExperts) {
  const RoutingTrace trace = make_synthetic_trace({.experts = 8}, 1);
  const Cluster cluster = cluster_of({4, 4});
  const PlacementShape shape = placement_shape(trace, 8);
  for (const int slots : {16, 17, 300000000, std::numeric_limits<int>::max()}) {
    const PlanOptions options{.slots = slots, .time_budget_s = 0.01};
    EXPECT_EQ(slots_per_rank(shape, options), 16);
    expect_slots(plan_placement(trace, cluster, options), 16);
    expect_slots(balanced_placement(trace, cluster, options), 16);
    EXPECT_GE(least_rank_imbalance(trace, cluster, options), 1);
  }
  EXPECT_EQ(slots_per_rank(shape, {.redundancy = 7}), 16);
  EXPECT_EQ(slots_per_rank(shape, {.redundancy = 1e300}), 16);
  EXPECT_EQ(slots_per_rank(shape, {.redundancy = 0.5}), 3);
  const PlacementShape wide{.layers = 1, .groups = 2, .experts = 32767, .ranks = 1 << 20};
  expect_error<ConfigError>([&] { slots_per_rank(wide, {.slots = 40000}); },
                            {"40000 slots on each of 1048576 ranks", "2147483647"});
}

TEST(PlanLimitsTest, OptionsThatCannotBe) {
  const RoutingTrace trace = make_synthetic_trace({.tokens = 20}, 1);
  const Cluster cluster = cluster_of({1, 1});
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  for (const auto& [options, name] :
       {std::pair(PlanOptions{.load_cap = 0.5}, "load_cap"),
        std::pair(PlanOptions{.load_margin = -1}, "load_margin"),
        std::pair(PlanOptions{.redundancy = -1}, "redundancy"),
        std::pair(PlanOptions{.tokens_per_step = 1e300}, "tokens_per_step"),
        std::pair(PlanOptions{.tokens_per_step = kNone}, "tokens_per_step"),
        std::pair(PlanOptions{.time_budget_s = -1}, "time_budget_s"),
        std::pair(PlanOptions{.horizon_steps = 0}, "horizon_steps"),
        std::pair(PlanOptions{.horizon_steps = kNone}, "horizon_steps")}) {
    expect_error<ConfigError>([&] { plan_placement(trace, cluster, options); }, {name});
    expect_error<ConfigError>([&] { balanced_placement(trace, cluster, options); }, {name});
  }
}

TEST(PlanLimitsTest, TimeBudgetsOfAnySize) {
  EXPECT_EQ(work_of_layer({.time_budget_s = 0}, 2), 0);
  EXPECT_EQ(work_of_layer({.time_budget_s = 2}, 2), 6000000);
  EXPECT_EQ(work_of_layer({.time_budget_s = 2}, 0), 12000000);
  for (const double seconds : {1e13, 1e308, std::numeric_limits<double>::infinity()}) {
    EXPECT_EQ(work_of_layer({.time_budget_s = seconds}, 1), 1000000000000000);
  }
}

/// Where balancing reaches the cap, plans do; elsewhere they are a little above it at most.
TEST(PlanLimitsTest, LoadsOfNodesAndRanks) {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(seed);
    Dice dice(seed);
    const Cluster cluster = cluster_of(random_nodes(dice));
    const SyntheticTraceSpec spec = random_spec(dice);
    const RoutingTrace trace = make_synthetic_trace(spec, seed);
    PlanOptions options = random_options(dice);
    options.redundancy = 0;
    const PlacementShape shape = placement_shape(trace, cluster.topology.ranks());
    if (shape.groups * shape.experts % shape.ranks != 0) {
      continue;  // slots that are left hold replicas
    }
    const Placement planned = plan_placement(trace, cluster, options);
    const Placement balanced = balanced_placement(trace, cluster, options);
    const std::vector<LayerTrace> layers = layers_of(trace);
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const auto index = static_cast<int>(i);
      const Worst reached = worst_loads(layers[i], index, balanced, cluster.topology);
      const Worst worst = worst_loads(layers[i], index, planned, cluster.topology);
      EXPECT_LE(worst.node, std::max(options.load_cap, reached.node + 0.05) + 1e-9);
      EXPECT_LE(worst.rank, std::max(options.load_cap, reached.rank + 0.05) + 1e-9);
    }
  }
}

TEST(PlanLimitsTest, NoMoreCopiesAndNoSlowerThanLinear) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    Dice dice(seed);
    const Cluster cluster = cluster_of(std::vector<int>(4, 2));
    SyntheticTraceSpec spec = random_spec(dice);
    spec.layers = 1;
    spec.experts = 16;
    spec.cluster = 4 * dice.below(3);
    const RoutingTrace trace = make_synthetic_trace(spec, seed);
    PlanOptions options = random_options(dice);
    options.load_cap = 100;
    options.redundancy = 0;
    options.objective = Objective::copies;
    const auto copies = [&](const Placement& placement) {
      return count_traffic(layers_of(trace)[0], 0, placement, cluster.topology,
                           {.flow = options.flow, .rule = PivotRule::oracle})
          .copies();
    };
    EXPECT_LE(copies(plan_placement(trace, cluster, options)),
              copies(Placement::linear(placement_shape(trace, 8), 8)) + 1e-6)
        << "seed " << seed;
    const auto seconds = [&](const Placement& placement) {
      return evaluate_placement(trace, cluster, placement, options).time.total();
    };
    for (const Objective objective : {Objective::copies_in_time, Objective::step_time}) {
      options.objective = objective;
      EXPECT_LE(seconds(plan_placement(trace, cluster, options)),
                seconds(Placement::linear(placement_shape(trace, 8), 8)) * (1 + 1e-9))
          << "seed " << seed;
    }
  }
}

}  // namespace
}  // namespace cartesian::test
