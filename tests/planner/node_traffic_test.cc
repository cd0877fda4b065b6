#include "planner/node_traffic.h"

#include <gtest/gtest.h>

#include "base/index.h"
#include "planner/dice.h"
#include "planner/plan.h"
#include "planner/synthetic_trace.h"

namespace cartesian::test {
namespace {

void expect_near(const std::vector<double>& a, const std::vector<double>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_NEAR(a[i], b[i], 1e-6);
  }
}

void expect_same(const Traffic& a, const Traffic& b) {
  EXPECT_EQ(a.tokens, b.tokens);
  for (std::size_t phase = 0; phase < a.phases.size(); ++phase) {
    expect_near(a.phases.at(phase).egress, b.phases.at(phase).egress);
    expect_near(a.phases.at(phase).ingress, b.phases.at(phase).ingress);
    EXPECT_NEAR(a.phases.at(phase).intra, b.phases.at(phase).intra, 1e-6);
  }
  ASSERT_EQ(a.expert_rows.size(), b.expert_rows.size());
  for (std::size_t group = 0; group < a.expert_rows.size(); ++group) {
    expect_near(a.expert_rows[group], b.expert_rows[group]);
  }
  expect_near(a.pivots, b.pivots);
}

TEST(NodeTrafficTest, IsWhatMessagesSay) {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE(seed);
    Dice dice(seed);
    std::vector<int> sizes;
    for (int node = 1 + dice.below(11); node > 0; --node) {
      sizes.push_back(seed % 2 == 0 ? 1 : 1 + dice.below(4));
    }
    int ranks = 0;
    for (const int size : sizes) {
      ranks += size;
    }
    const Topology topology = Topology::from_node_sizes(sizes, ranks);
    const int groups = 1 + dice.below(4) / 1 % 2;
    RoutingTrace trace = make_synthetic_trace({.groups = groups,
                                               .experts = 12,
                                               .choices = 1 + dice.below(4),
                                               .tokens = dice.below(60),
                                               .ragged = dice.below(2) == 0,
                                               .prediction = dice.uniform()},
                                              seed);
    if (dice.below(3) == 0) {
      for (std::int64_t token = 0; token < trace.tokens; ++token) {
        trace.home.push_back(dice.below(ranks));
      }
    }
    std::vector<int> rank_of;
    std::vector<std::vector<int>> replicas;
    for (int expert = 0; expert < 12 * groups; ++expert) {
      rank_of.push_back(dice.below(ranks));
      replicas.push_back({rank_of.back()});
    }
    const Placement bare(placement_shape(trace, ranks), replicas);
    const LayerTrace layer = layers_of(trace)[0];
    std::vector<float> scores;
    if (groups == 2) {
      scores = pivot_scores(trace, bare, topology);
    }
    for (const Flow flow : {Flow::home, Flow::pivot}) {
      for (const PivotRule rule : {PivotRule::speculative, PivotRule::table}) {
        for (const bool scored : {false, true}) {
          const TrafficOptions options{.flow = flow, .rule = rule};
          const Placement placement =
              scored && groups == 2 ? bare.with_pivot_scores(topology.nodes(), scores) : bare;
          expect_same(count_node_traffic(layer,
                                         {.ranks = rank_of,
                                          .scores = scored ? std::span<const float>(scores)
                                                           : std::span<const float>()},
                                         topology, options),
                      count_traffic(layer, 0, placement, topology, options));
        }
      }
    }
  }
}

}  // namespace
}  // namespace cartesian::test
