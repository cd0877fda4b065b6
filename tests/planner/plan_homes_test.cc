// Plans for traces that say where tokens live.

#include <gtest/gtest.h>

#include "base/error.h"
#include "planner/dice.h"
#include "planner/plan.h"
#include "planner/synthetic_trace.h"
#include "planner/traffic.h"

namespace cartesian::test {
namespace {

double copies(const RoutingTrace& trace, const Cluster& cluster, const Placement& placement,
              Flow flow) {
  return count_traffic(layers_of(trace)[0], 0, placement, cluster.topology,
                       {.flow = flow, .rule = PivotRule::oracle})
      .copies_per_token();
}

/// Token i lives on node i % 4. Nine in ten choose the experts that the linear placement of 8 + 8
/// experts has there, renamed by `turn` nodes; the others two of each group at random.
RoutingTrace choices_at_home(int turn) {
  RoutingTrace trace = make_synthetic_trace({.tokens = 2000}, 1);
  Dice dice(7);
  for (std::int64_t token = 0; token < trace.tokens; ++token) {
    const auto home = static_cast<int>(token % 4);
    trace.home.push_back(home);
    const int first = dice.below(10) == 0 ? dice.below(7) : (home + turn) % 4 * 2;
    for (RoutingTrace::SubLayer& group : trace.sub_layers) {
      for (std::int64_t i = 0; i < 2; ++i) {
        group.ids[as_index(2 * token + i)] = static_cast<std::int16_t>(first + i);
        if (!group.speculative_ids.empty()) {
          group.speculative_ids[as_index(2 * token + i)] = static_cast<std::int16_t>(first + i);
        }
      }
    }
  }
  return trace;
}

TEST(PlanHomesTest, ExpertsLiveWhereTheirTokensDo) {
  const Cluster cluster = uniform_cluster(4, 1);
  for (const Flow flow : {Flow::home, Flow::pivot}) {
    const RoutingTrace trace = choices_at_home(0);
    const Placement linear = Placement::linear(placement_shape(trace, 4), 4);
    for (const int turn : {0, 1, 3}) {
      const RoutingTrace turned = choices_at_home(turn);
      for (const double redundancy : {0.0, 0.25}) {
        const Placement planned = plan_placement(
            turned, cluster, {.flow = flow, .redundancy = redundancy, .time_budget_s = 0.05});
        EXPECT_LE(copies(turned, cluster, planned, flow),
                  copies(trace, cluster, linear, flow) + 0.02)
            << turn << " " << redundancy;
      }
    }
  }
}

TEST(PlanHomesTest, HomesAreRanks) {
  RoutingTrace trace = choices_at_home(0);
  trace.home[3] = 4;
  EXPECT_THROW(plan_placement(trace, uniform_cluster(4, 1), {.time_budget_s = 0.01}), ConfigError);
  trace.home[3] = -1;
  EXPECT_THROW(plan_placement(trace, uniform_cluster(4, 1), {.time_budget_s = 0.01}), ConfigError);
}

}  // namespace
}  // namespace cartesian::test
