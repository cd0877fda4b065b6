// What plans promise of the predicted step.

#include <gtest/gtest.h>

#include "planner/plan_report.h"
#include "planner/synthetic_trace.h"

namespace cartesian::test {
namespace {

double seconds(const RoutingTrace& trace, const Cluster& cluster, const Placement& placement,
               const PlanOptions& options) {
  return evaluate_placement(trace, cluster, placement, options).time.total();
}

struct Case {
  SyntheticTraceSpec spec;
  int nodes = 4;
  int ranks = 1;  ///< of a node
  double budget_s = 0.3;
};

class PlanStepTest : public testing::TestWithParam<Case> {};

/// A cap on both groups together allows A on some nodes and B on others: few copies, and cards that
/// have twice their share.
TEST_P(PlanStepTest, NoSlowerThanLinearAndBalanced) {
  const Case& given = GetParam();
  const RoutingTrace trace = make_synthetic_trace(given.spec, 1);
  const Cluster cluster = uniform_cluster(given.nodes, given.ranks);
  const PlacementShape shape = placement_shape(trace, cluster.topology.ranks());
  for (const Flow flow : {Flow::pivot, Flow::home}) {
    for (const double redundancy : {0.0, 0.1}) {
      const PlanOptions options{
          .flow = flow, .redundancy = redundancy, .time_budget_s = given.budget_s};
      const double planned =
          seconds(trace, cluster, plan_placement(trace, cluster, options), options);
      EXPECT_LE(planned, (1 + 1e-9) * seconds(trace, cluster,
                                              balanced_placement(trace, cluster, options), options))
          << redundancy;
      EXPECT_LE(planned, (1 + 1e-9) * seconds(trace, cluster, Placement::linear(shape, shape.ranks),
                                              options))
          << redundancy;
    }
  }
}

/// A slot more than are needed divides unevenly between the groups.
TEST(PlanStepRoom, ASlotToSpareDoesNoHarm) {
  const RoutingTrace trace =
      make_synthetic_trace({.experts = 256, .tokens = 4096, .tokens_per_step = 1'000'000'000}, 1);
  const Cluster cluster = uniform_cluster(64, 1);
  PlanOptions options{.time_budget_s = 0.4};
  const double without = seconds(trace, cluster, plan_placement(trace, cluster, options), options);
  options.slots = 9;
  EXPECT_LE(seconds(trace, cluster, plan_placement(trace, cluster, options), options),
            1.03 * without);
}

INSTANTIATE_TEST_SUITE_P(
    Cases, PlanStepTest,
    testing::Values(
        Case{{.experts = 64, .choices = 4, .tokens = 2000, .tokens_per_step = 100'000'000}, 16},
        Case{{.experts = 64,
              .choices = 4,
              .tokens = 2000,
              .cluster = 16,
              .strength = 0.5,
              .tokens_per_step = 100'000'000},
             16},
        Case{{.experts = 64, .tokens = 1500, .tokens_per_step = 1'000'000}, 8, 2},
        Case{{.groups = 1, .experts = 32, .tokens = 1000, .tokens_per_step = 1'000'000}, 8}),
    [](const testing::TestParamInfo<Case>& given) { return std::to_string(given.index); });

}  // namespace
}  // namespace cartesian::test
