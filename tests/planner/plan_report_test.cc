// What is said of placements: pivots by what the whole trace has the evidence for, and bounds.

#include "planner/plan_report.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>

#include "base/index.h"
#include "planner/synthetic_trace.h"

namespace cartesian::test {
namespace {

PlacementCosts costs_of(const RoutingTrace& trace, const Cluster& cluster) {
  const PlacementShape shape = placement_shape(trace, cluster.topology.ranks());
  return evaluate_placement(trace, cluster, Placement::linear(shape, shape.ranks), {});
}

TEST(PlanReportTest, PivotsAreSpeculativeInAllLayersOrInNone) {
  const Cluster cluster = uniform_cluster(4, 1);
  RoutingTrace trace = make_synthetic_trace({.layers = 2, .experts = 8, .prediction = 0.8}, 1);
  EXPECT_EQ(best_rule(trace), PivotRule::speculative);
  const PlacementCosts all = costs_of(trace, cluster);
  ASSERT_TRUE(all.speculative);
  EXPECT_EQ(all.pivot(), *all.speculative);
  trace.sub_layers[3].speculative_ids.clear();
  EXPECT_EQ(best_rule(trace), PivotRule::table);
  const PlacementCosts some = costs_of(trace, cluster);
  EXPECT_FALSE(some.speculative);
  EXPECT_EQ(some.pivot(), all.table);
  trace.sub_layers[1].speculative_ids.clear();
  const PlacementCosts none = costs_of(trace, cluster);
  EXPECT_EQ(some.pivot(), none.pivot());
  EXPECT_EQ(some.inter_bytes, none.inter_bytes);
  EXPECT_EQ(some.time.total(), none.time.total());
  EXPECT_FALSE(costs_of(make_synthetic_trace({.groups = 1}, 1), cluster).speculative);
}

/// Tokens that choose what the linear placement has at their homes, nine of ten.
TEST(PlanReportTest, NoBoundOfCopiesWhereHomesAreGiven) {
  const Cluster cluster = uniform_cluster(4, 1);
  RoutingTrace trace = make_synthetic_trace({.experts = 8, .tokens = 400}, 1);
  const double uniform = *least_copies(trace, cluster, {});
  for (std::int64_t token = 0; token < trace.tokens; ++token) {
    const auto home = static_cast<std::int32_t>(token % 4);
    trace.home.push_back(home);
    for (RoutingTrace::SubLayer& sub_layer : trace.sub_layers) {
      for (auto* ids : {&sub_layer.ids, &sub_layer.speculative_ids}) {
        for (std::size_t i = 0; token % 10 != 0 && i < 2 && !ids->empty(); ++i) {
          (*ids)[2 * as_index(token) + i] = static_cast<std::int16_t>(2 * home + as_index(i));
        }
      }
    }
  }
  EXPECT_LT(costs_of(trace, cluster).pivot(), uniform);
  EXPECT_FALSE(least_copies(trace, cluster, {}));
}

}  // namespace
}  // namespace cartesian::test
