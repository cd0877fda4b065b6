#include "base/itinerary.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <vector>

namespace cartesian {
namespace {

constexpr int kExperts = 6;

std::vector<std::int32_t> choose(const Placement& placement, const Topology& topology, int home,
                                 std::vector<std::int32_t> experts, std::int64_t token = 0) {
  std::vector<std::int32_t> ranks(experts.size());
  const TokenChoices choices{
      .layer = 0, .group = 0, .origin = home, .home = home, .token = token, .experts = experts};
  choose_replicas(choices, placement, topology, ranks);
  return ranks;
}

// Three nodes of two ranks.
Topology three_nodes() { return Topology::from_node_sizes(std::array{2, 2, 2}, 6); }

Placement place(std::vector<std::vector<int>> replicas) {
  return {{1, 1, static_cast<int>(replicas.size()), 6}, std::move(replicas)};
}

TEST(Itinerary, SingleReplicasLeaveNoChoice) {
  const Placement placement = Placement::linear({1, 1, kExperts, 6}, 6);
  EXPECT_EQ(choose(placement, three_nodes(), 3, {5, 0, -1, 3}), (std::vector{5, 0, -1, 3}));
  EXPECT_EQ(choose(placement, three_nodes(), 0, {}), std::vector<std::int32_t>());
}

TEST(Itinerary, PrefersHomeThenItsNode) {
  const Placement placement = place({{0, 1, 2, 3, 4, 5}, {1, 2, 5}, {0, 4}});
  for (std::int64_t token = 0; token < 50; ++token) {
    EXPECT_EQ(choose(placement, three_nodes(), 4, {0, 1, 2}, token), (std::vector{4, 5, 4}));
    EXPECT_EQ(choose(placement, three_nodes(), 0, {0, 1, 2}, token), (std::vector{0, 1, 0}));
  }
}

TEST(Itinerary, PrefersNodesThatTheTokenVisitsAnyway) {
  // Home is on node 0. Expert 0 is on node 2 only, expert 1 on nodes 1 and 2.
  const Placement placement = place({{4}, {2, 5}, {2, 3}});
  for (std::int64_t token = 0; token < 50; ++token) {
    EXPECT_EQ(choose(placement, three_nodes(), 0, {1, 0}, token), (std::vector{5, 4}));
    EXPECT_EQ(choose(placement, three_nodes(), 0, {0, 1}, token), (std::vector{4, 5}));
  }
}

TEST(Itinerary, DoesNotDependOnTheOrderOfChoices) {
  const Placement placement = place({{4, 5}, {2, 5}, {1, 3, 4}, {2, 3, 4, 5}, {3}, {0, 5}});
  std::vector<std::int32_t> experts = {0, 1, 2, 3, 4, 5};
  for (std::int64_t token = 0; token < 20; ++token) {
    for (int home = 0; home < 6; ++home) {
      const auto expected = choose(placement, three_nodes(), home, {0, 1, 2, 3, 4, 5}, token);
      std::vector<std::int32_t> order = experts;
      std::rotate(order.begin(), order.begin() + token % 6, order.end());
      const auto ranks = choose(placement, three_nodes(), home, order, token);
      for (std::size_t i = 0; i < order.size(); ++i) {
        EXPECT_EQ(ranks[i], expected[static_cast<std::size_t>(order[i])]);
      }
    }
  }
}

TEST(Itinerary, SpreadsFreeChoicesEvenly) {
  const Placement placement = place({{2, 3, 4, 5}});
  std::array<int, 6> counts{};
  constexpr int kTokens = 8000;
  for (std::int64_t token = 0; token < kTokens; ++token) {
    ++counts.at(static_cast<std::size_t>(choose(placement, three_nodes(), 0, {0}, token)[0]));
  }
  EXPECT_EQ(counts[0] + counts[1], 0);
  for (std::size_t rank = 2; rank < 6; ++rank) {
    EXPECT_NEAR(counts.at(rank), kTokens / 4, 200);
  }
}

TEST(Itinerary, ChoosesReplicasOnly) {
  const Placement placement = Placement::local({1, 1, 7, 6}, three_nodes());
  for (std::int64_t token = 0; token < 100; ++token) {
    const int home = static_cast<int>(token % 6);
    const auto ranks = choose(placement, three_nodes(), home, {0, 3, 6}, token);
    for (const std::int32_t rank : ranks) {
      EXPECT_EQ(three_nodes().node(rank), three_nodes().node(home));
    }
  }
}

/// Group 0 is A on ranks a[e], group 1 is B on ranks b[e], of three nodes of two ranks.
Placement place_both(const std::vector<int>& a, const std::vector<int>& b) {
  std::vector<std::vector<int>> replicas;
  for (const auto* group : {&a, &b}) {
    for (const int rank : *group) {
      replicas.push_back({rank});
    }
  }
  return {{1, 2, static_cast<int>(a.size()), 6}, std::move(replicas)};
}

int pivot(const Placement& placement, int home, const std::vector<std::int32_t>& a,
          const std::vector<float>& gates, const std::vector<std::int32_t>& b) {
  const std::vector<std::int32_t> a_ranks = choose(placement, three_nodes(), home, a);
  return choose_pivot(Flow::pivot, 0, home, 0, {.a = a, .gates = gates, .a_ranks = a_ranks, .b = b},
                      placement, three_nodes());
}

TEST(Itinerary, ThePivotIsWhereFewestCopiesAreNeeded) {
  const Placement placement = place_both({2, 4, 0}, {3, 5, 1});
  // Home is rank 1; A is on nodes 1 and 2, and so is the rail of each: its second rank.
  EXPECT_EQ(pivot(placement, 1, {0, 1}, {0.4F, 0.6F}, {0}), 3);
  EXPECT_EQ(pivot(placement, 1, {0, 1}, {0.4F, 0.6F}, {1}), 5);
  // B at home's node: what a pivot elsewhere saves of A it costs of B; the larger gate decides.
  EXPECT_EQ(pivot(placement, 1, {0, 1}, {0.4F, 0.6F}, {2}), 5);
  // Nothing known of B.
  EXPECT_EQ(pivot(placement, 1, {0, 1}, {0.4F, 0.6F}, {}), 5);
  EXPECT_EQ(pivot(placement, 1, {0, 1}, {0.6F, 0.4F}, {}), 3);
  EXPECT_EQ(pivot(placement, 1, {0, 1}, {}, {}), 3);
  // B chooses nothing, and the token would have to return from a pivot: one copy more, one less.
  EXPECT_EQ(pivot(placement, 1, {0}, {1}, {-1}), 3);
  // Home hosts A.
  EXPECT_EQ(pivot(placement, 1, {2}, {1}, {0}), 1);
}

TEST(Itinerary, ScoresDecideWhereBIsNotKnown) {
  const Placement placement =
      place_both({2, 4, 0}, {3, 5, 1}).with_pivot_scores(3, {0, 0.2F, 0, 0, 0, 0.3F, 0, 0, 0});
  EXPECT_EQ(pivot(placement, 1, {0, 1}, {0.9F, 0.1F}, {}), 5);
  EXPECT_EQ(pivot(placement, 1, {0, 1}, {0.9F, 0.1F}, {0}), 3);  // known is better
}

TEST(Itinerary, BPrefersThePivotThenHome) {
  const Placement placement = place({{0, 2, 5}, {0, 2}, {1, 5}});
  std::vector<std::int32_t> ranks(3);
  choose_replicas({.layer = 0,
                   .group = 0,
                   .origin = 3,
                   .home = 0,
                   .token = 9,
                   .experts = std::array<std::int32_t, 3>{0, 1, 2}},
                  placement, three_nodes(), ranks);
  EXPECT_EQ(ranks, (std::vector<std::int32_t>{2, 2, 1}));
}

TEST(Itinerary, TheFinisherHasTheResidual) {
  const Topology topology = three_nodes();
  EXPECT_EQ(choose_finisher(Flow::pivot, 1, 3, std::array{0, 4}, topology), 1);
  EXPECT_EQ(choose_finisher(Flow::pivot, 1, 3, std::array{4, 2}, topology), 3);
  EXPECT_EQ(choose_finisher(Flow::pivot, 1, 3, std::array{4, -1}, topology), 5);
  EXPECT_EQ(choose_finisher(Flow::pivot, 1, 3, std::array{-1}, topology), 3);
}

TEST(Itinerary, OtherFlowsPivotAtHome) {
  const Placement placement = place({{4}, {2}});
  for (const Flow flow : {Flow::flat, Flow::home, Flow::pivot}) {
    EXPECT_EQ(parse_flow(name_of(flow)), flow);
  }
  EXPECT_FALSE(parse_flow("round"));
  EXPECT_EQ(choose_pivot(Flow::flat, 0, 3, 0, {}, placement, three_nodes()), 3);
  EXPECT_EQ(choose_pivot(Flow::home, 0, 3, 0, {}, placement, three_nodes()), 3);
  EXPECT_EQ(choose_finisher(Flow::flat, 3, 3, std::array{4}, three_nodes()), 3);
}

}  // namespace
}  // namespace cartesian
