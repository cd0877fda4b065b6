// The way from one placement to another: every placement on it is valid, within slots and budget,
// and the last is the one that was wanted.

#include "planner/portioned_migration.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/index.h"
#include "base/random.h"
#include "planner/migration.h"
#include "tests/planner/expect_slots.h"

namespace cartesian::test {
namespace {

/// Draws from one stream.
class Draws {
 public:
  explicit Draws(std::uint64_t seed) : key_(random_key(seed, "placements")) {}
  int below(int count) {
    return static_cast<int>(random_bits(key_, next_++) % static_cast<std::uint64_t>(count));
  }

 private:
  std::uint64_t key_;
  std::uint64_t next_ = 0;
};

/// Each expert on one rank, or with `most` on up to so many.
Placement random_placement(const PlacementShape& shape, int most, Draws& draws) {
  std::vector<std::vector<int>> replicas;
  for (int i = 0; i < shape.layers * shape.groups * shape.experts; ++i) {
    std::vector<int> ranks;
    for (int wanted = 1 + draws.below(most); wanted > 0; --wanted) {
      ranks.push_back(draws.below(shape.ranks));
    }
    std::ranges::sort(ranks);
    ranks.erase(std::ranges::unique(ranks).begin(), ranks.end());
    replicas.push_back(ranks);
  }
  return {shape, replicas};
}

/// Every rank has as many experts of each layer: no slot is free. REQUIRES: ranks divide experts.
Placement random_full_placement(const PlacementShape& shape, Draws& draws) {
  std::vector<std::vector<int>> replicas;
  for (int layer = 0; layer < shape.layers; ++layer) {
    const int count = shape.groups * shape.experts;
    std::vector<int> order;
    for (int i = 0; i < count; ++i) {
      order.insert(order.begin() + draws.below(i + 1), i);
    }
    for (const int place : order) {
      replicas.push_back({place % shape.ranks});
    }
  }
  return {shape, replicas};
}

int slots_of(const Placement& placement) {
  int most = 0;
  for (int layer = 0; layer < placement.shape().layers; ++layer) {
    for (int rank = 0; rank < placement.shape().ranks; ++rank) {
      std::size_t held = 0;
      for (int group = 0; group < placement.shape().groups; ++group) {
        held += placement.experts_on(layer, group, rank).size();
      }
      most = std::max(most, static_cast<int>(held));
    }
  }
  return most;
}

std::vector<MigrationPortion> way(const Placement& from, const Placement& to,
                                  const PortionLimits& limits) {
  PortionedMigration migration(from, to, limits);
  std::vector<MigrationPortion> portions;
  const std::size_t expected = migration.portions_left();
  while (std::optional<MigrationPortion> portion = migration.next()) {
    portions.push_back(std::move(*portion));
  }
  EXPECT_FALSE(migration.next());
  EXPECT_EQ(portions.size(), expected);
  EXPECT_EQ(migration.portions_left(), 0U);
  return portions;
}

/// Replicas that the next placement has and this has not.
std::int64_t new_replicas(const Placement& from, const Placement& to) {
  const Cluster cluster = uniform_cluster(1, from.shape().ranks);
  return plan_migration(from, to, cluster, 1).replicas;
}

void expect_valid_way(const Placement& from, const Placement& to, const PortionLimits& limits) {
  const int slots = std::max({limits.slots, slots_of(from), slots_of(to)});
  const Placement* at = &from;
  const std::vector<MigrationPortion> portions = way(from, to, limits);
  std::int64_t moved = 0;
  for (const MigrationPortion& portion : portions) {
    expect_slots(portion.placement, slots);
    EXPECT_EQ(new_replicas(*at, portion.placement), portion.replicas);
    EXPECT_EQ(portion.bytes, portion.replicas * limits.expert_bytes);
    EXPECT_EQ(portion.over_budget,
              limits.bytes_per_portion > 0 && portion.bytes > limits.bytes_per_portion);
    moved += portion.replicas;
    at = &portion.placement;
  }
  EXPECT_TRUE(*at == to);
  EXPECT_EQ(moved, new_replicas(from, to)) << "something moved more than once";
}

TEST(PortionedMigrationTest, EveryPlacementOnTheWayIsValid) {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Draws draws(seed);
    const PlacementShape shape{.layers = 1 + draws.below(3),
                               .groups = 1 + draws.below(2),
                               .experts = 1 + draws.below(9),
                               .ranks = 1 + draws.below(6)};
    const Placement from = random_placement(shape, 1 + draws.below(3), draws);
    const Placement to = random_placement(shape, 1 + draws.below(3), draws);
    for (const int budget : {0, 1, 10, 25, 1000}) {
      expect_valid_way(from, to,
                       {.expert_bytes = 10,
                        .bytes_per_portion = static_cast<double>(budget),
                        .slots = draws.below(20)});
    }
  }
}

TEST(PortionedMigrationTest, FullRanksSwap) {
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Draws draws(seed);
    const int ranks = 2 + draws.below(4);
    const PlacementShape shape{
        .layers = 2, .groups = 2, .experts = ranks * (1 + draws.below(3)), .ranks = ranks};
    const Placement from = random_full_placement(shape, draws);
    const Placement to = random_full_placement(shape, draws);
    expect_valid_way(from, to, {.expert_bytes = 10, .bytes_per_portion = 10});
    expect_valid_way(from, to, {.expert_bytes = 10, .bytes_per_portion = 30});
  }
}

TEST(PortionedMigrationTest, ThousandsOfSwaps) {
  Draws draws(1);
  const PlacementShape shape{.layers = 32, .groups = 2, .experts = 128, .ranks = 64};
  const Placement from = random_full_placement(shape, draws);
  const Placement to = random_full_placement(shape, draws);
  PortionedMigration migration(from, to, {.expert_bytes = 10, .bytes_per_portion = 10});
  EXPECT_GT(migration.portions_left(), 1000U);
}

TEST(PortionedMigrationTest, ASwapMayExceedThePortionAndSaysSo) {
  const PlacementShape shape{.layers = 1, .groups = 1, .experts = 2, .ranks = 2};
  const Placement from(shape, {{0}, {1}});
  const Placement to(shape, {{1}, {0}});
  const auto portions = way(from, to, {.expert_bytes = 4, .bytes_per_portion = 5});
  ASSERT_EQ(portions.size(), 1U);
  EXPECT_TRUE(portions[0].over_budget);
  EXPECT_EQ(portions[0].bytes, 8);
  // With a slot to spare one moves after the other.
  const auto roomy = way(from, to, {.expert_bytes = 4, .bytes_per_portion = 5, .slots = 2});
  ASSERT_EQ(roomy.size(), 2U);
  EXPECT_FALSE(roomy[0].over_budget || roomy[1].over_budget);
}

TEST(PortionedMigrationTest, PortionsAreFilled) {
  const PlacementShape shape{.layers = 1, .groups = 1, .experts = 6, .ranks = 7};
  const Placement from(shape, {{0}, {0}, {0}, {0}, {0}, {0}});
  const Placement to(shape, {{1}, {2}, {3}, {4}, {5}, {6}});
  const auto portions = way(from, to, {.expert_bytes = 1, .bytes_per_portion = 4});
  ASSERT_EQ(portions.size(), 2U);
  EXPECT_EQ(portions[0].replicas, 4);
  EXPECT_EQ(portions[1].replicas, 2);
}

TEST(PortionedMigrationTest, WithoutBudgetItIsOnePortion) {
  Draws draws(1);
  const PlacementShape shape{.layers = 3, .groups = 2, .experts = 8, .ranks = 4};
  const Placement from = random_full_placement(shape, draws);
  const Placement to = random_full_placement(shape, draws);
  EXPECT_EQ(way(from, to, {.expert_bytes = 1}).size(), 1U);
  EXPECT_TRUE(way(from, from, {.expert_bytes = 1}).empty());
}

TEST(PortionedMigrationTest, PivotScoresChangeWithTheLastPortion) {
  const PlacementShape shape{.layers = 1, .groups = 2, .experts = 1, .ranks = 2};
  const Placement from = Placement(shape, {{0}, {0}}).with_pivot_scores(2, {1, 0});
  const Placement to = Placement(shape, {{1}, {1}}).with_pivot_scores(2, {0, 1});
  const auto portions = way(from, to, {.expert_bytes = 1, .bytes_per_portion = 1, .slots = 2});
  ASSERT_EQ(portions.size(), 2U);
  EXPECT_EQ(portions[0].placement.pivot_scores(0, 0)[0], 1);
  EXPECT_TRUE(portions[1].placement == to);
  // Scores alone, and replicas that only go, move nothing, but are a portion.
  const Placement rescored = from.with_pivot_scores(2, {0, 1});
  const auto scores = way(from, rescored, {.expert_bytes = 1, .bytes_per_portion = 1});
  ASSERT_EQ(scores.size(), 1U);
  EXPECT_EQ(scores[0].bytes, 0);
  EXPECT_TRUE(scores[0].placement == rescored);
}

}  // namespace
}  // namespace cartesian::test
