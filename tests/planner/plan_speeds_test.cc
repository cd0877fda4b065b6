// Clusters some of whose ranks or cards are slower than the rest.

#include <gtest/gtest.h>

#include <numeric>

#include "base/index.h"
#include "planner/gradient_rings.h"
#include "planner/migration.h"
#include "planner/plan_report.h"
#include "planner/simulation.h"
#include "planner/synthetic_trace.h"
#include "planner/traffic.h"

namespace cartesian::test {
namespace {

constexpr double kRounding = 1e-9;

Cluster four_nodes(std::vector<double> rank_speeds, std::vector<double> card_speeds) {
  Cluster cluster = uniform_cluster(4, 2);
  cluster.flops = 1e9;
  cluster.inter = {.bytes_per_s = 1e7, .latency_s = 1e-5};
  cluster.rank_speeds = std::move(rank_speeds);
  cluster.card_speeds = std::move(card_speeds);
  return cluster;
}

/// Some experts are liked more than others, so that there is something to shift.
RoutingTrace skewed_trace(std::uint64_t seed) {
  return make_synthetic_trace({.experts = 32,
                               .tokens = 3000,
                               .cluster = 8,
                               .strength = 0.7,
                               .skew = 0.6,
                               .tokens_per_step = 1'000'000},
                              seed);
}

/// [ranks] choices that each serves, over the mean.
std::vector<double> loads(const RoutingTrace& trace, const Placement& placement) {
  std::vector<double> loads(as_index(placement.shape().ranks));
  for (std::size_t group = 0; group < trace.sub_layers.size(); ++group) {
    for (const std::int16_t id : trace.sub_layers[group].ids) {
      const auto ranks = placement.replicas(0, static_cast<int>(group), id);
      for (const int rank : ranks) {
        loads[as_index(rank)] += 1 / static_cast<double>(ranks.size());
      }
    }
  }
  const double mean = std::reduce(loads.begin(), loads.end()) / static_cast<double>(loads.size());
  for (double& load : loads) {
    load /= mean;
  }
  return loads;
}

TEST(LoadShares, FollowTheRanksSpeeds) {
  EXPECT_TRUE(load_shares(four_nodes({}, {1, 0.5, 1, 1})).empty());
  EXPECT_TRUE(load_shares(four_nodes(std::vector<double>(8, 0.5), {})).empty());
  std::vector<double> expected{8, 8, 2, 8, 2, 8, 8, 4};
  for (double& share : expected) {
    share /= 6;
  }
  EXPECT_EQ(load_shares(four_nodes({1, 1, 0.25, 1, 0.25, 1, 1, 0.5}, {})), expected);
}

TEST(PredictedStep, TakesWhatTheSlowestTakes) {
  Traffic traffic;
  traffic.tokens = 100;
  for (Traffic::Phase& phase : traffic.phases) {
    phase.egress.resize(4);
    phase.ingress.resize(4);
  }
  traffic.phases[0].egress = {50, 20, 0, 0};
  traffic.phases[1].ingress = {10, 0, 0, 40};
  traffic.expert_rows = {{30, 10, 0, 0, 0, 0, 0, 0}, {0, 0, 0, 0, 0, 0, 0, 16}};
  traffic.pivots = {8, 0, 0, 4, 0, 0, 0, 0};
  const RowSizes sizes{.hidden = 10, .expert_width = 20, .element_bytes = 4, .experts = 50};
  const Cluster cluster = four_nodes({1, 0.25, 1, 0.1, 1, 1, 1, 1}, {1, 0.2, 1, 1});
  const StepTime time = predict_step(traffic, 100, cluster, sizes);
  // Cards: 20 rows at a fifth of the rate are as 100, and then 40. Forward and backward.
  EXPECT_NEAR(time.inter_s, 2 * (2 * 1e-5 + (100 + 40) * 40 / 1e7), kRounding);
  // Ranks: 10 rows at a quarter are as 40, then 16; 4 pivots at a tenth as 40. Three products each.
  EXPECT_NEAR(time.compute_s, 3 * ((40 + 16) * 6 * 10 * 20 + 40 * 2 * 10 * 50) / 1e9, kRounding);
}

TEST(Moving, TakesWhatTheSlowestCardTakes) {
  const PlacementShape shape{.layers = 1, .groups = 1, .experts = 8, .ranks = 8};
  const Placement from = Placement::linear(shape, 8);
  std::vector<std::vector<int>> ranks;
  for (int expert = 0; expert < 8; ++expert) {
    ranks.push_back({expert});
  }
  std::swap(ranks[0], ranks[2]);  // between nodes 0 and 1
  std::swap(ranks[4], ranks[6]);  // between nodes 2 and 3
  const Placement to(shape, ranks);
  const Cluster cluster = four_nodes({}, {1, 0.1, 1, 1});
  EXPECT_NEAR(plan_migration(from, to, cluster, 1000).seconds, 1000 / 1e6, kRounding);
  EXPECT_NEAR(plan_migration(from, to, four_nodes({}, {}), 1000).seconds, 1000 / 1e7, kRounding);
}

TEST(Gradients, TakeWhatTheSlowestCardTakes) {
  const PlacementShape shape{.layers = 1, .groups = 1, .experts = 1, .ranks = 8};
  const Placement twice(shape, {{0, 2}});
  const double even = count_gradients(twice, four_nodes({}, {}), 1e6).seconds;
  const double slow = count_gradients(twice, four_nodes({}, {1, 0.1, 1, 1}), 1e6).seconds;
  EXPECT_NEAR(slow - even, 1e6 / 1e6 - 1e6 / 1e7, kRounding);
}

/// Of the plans for clusters that differ in nothing but how speeds are said.
TEST(PlanSpeeds, AllAsSlowIsAClusterThatIsSlower) {
  const RoutingTrace trace = skewed_trace(1);
  const PlanOptions options{.time_budget_s = 0.2};
  const Cluster one = four_nodes(std::vector<double>(8, 0.5), std::vector<double>(4, 0.25));
  Cluster other = four_nodes({}, {});
  other.flops *= 0.5;
  other.inter.bytes_per_s *= 0.25;
  const Placement plan = plan_placement(trace, one, options);
  EXPECT_EQ(plan, plan_placement(trace, other, options));
  EXPECT_NEAR(evaluate_placement(trace, one, plan, options).time.total(),
              evaluate_placement(trace, other, plan, options).time.total(), kRounding);
  EXPECT_NEAR(simulate_step(trace, one, plan, {.rule = PivotRule::table}).seconds,
              simulate_step(trace, other, plan, {.rule = PivotRule::table}).seconds, kRounding);
}

/// Shifts load, as far as slots allow: a rank that must hold as many experts as the others gets
/// those that tokens like least.
TEST(PlanSpeeds, SlowRanksServeLess) {
  constexpr int kSlow = 3;
  const Cluster alike = four_nodes({}, {});
  const Cluster cluster = four_nodes({1, 1, 1, 0.4, 1, 1, 1, 1}, {});
  for (const double redundancy : {0.0, 0.25}) {
    for (const Flow flow : {Flow::pivot, Flow::home}) {
      for (std::uint64_t seed = 1; seed <= 3; ++seed) {
        const RoutingTrace trace = skewed_trace(seed);
        const PlanOptions options{.flow = flow, .redundancy = redundancy, .time_budget_s = 0.2};
        const auto seconds = [&](const Placement& placement) {
          return evaluate_placement(trace, cluster, placement, options).time.total();
        };
        const Placement unaware = plan_placement(trace, alike, options);
        const Placement aware = plan_placement(trace, cluster, options);
        const Placement balanced = balanced_placement(trace, cluster, options);
        EXPECT_LT(seconds(aware), 0.95 * seconds(unaware)) << "seed " << seed;
        EXPECT_LE(seconds(aware), (1 + kRounding) * seconds(balanced)) << "seed " << seed;
        EXPECT_LT(loads(trace, aware)[kSlow], 0.8 * loads(trace, unaware)[kSlow]);
        EXPECT_LT(loads(trace, balanced)[kSlow], 0.8) << "seed " << seed;
      }
    }
  }
}

/// What its own tokens need keeps it busy.
TEST(PlanSpeeds, ASlowCardMakesPlansNoWorse) {
  const Cluster cluster = four_nodes({}, {1, 1, 0.2, 1});
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    const RoutingTrace trace = skewed_trace(seed);
    const PlanOptions options{.time_budget_s = 0.2};
    const auto seconds = [&](const Placement& placement) {
      return evaluate_placement(trace, cluster, placement, options).time.total();
    };
    EXPECT_LE(seconds(plan_placement(trace, cluster, options)),
              (1 + kRounding) * seconds(plan_placement(trace, four_nodes({}, {}), options)));
  }
}

}  // namespace
}  // namespace cartesian::test
