// What moves between two placements, and how long the busiest card or rank takes.

#include "planner/migration.h"

#include <gtest/gtest.h>

#include <cmath>

namespace cartesian::test {
namespace {

/// Cards of 2 bytes a second, ranks of one.
Cluster slow_cluster(int nodes, int ranks_per_node) {
  Cluster cluster = uniform_cluster(nodes, ranks_per_node);
  cluster.inter = {.bytes_per_s = 2, .latency_s = 0};
  cluster.intra = {.bytes_per_s = 1, .latency_s = 0};
  return cluster;
}

PlacementShape one_group(int experts, int ranks) {
  return {.layers = 1, .groups = 1, .experts = experts, .ranks = ranks};
}

TEST(MigrationTest, RanksThatReceiveMayBeTheBusiest) {
  const Cluster cluster = slow_cluster(1, 8);
  const Placement spread(one_group(7, 8), {{1}, {2}, {3}, {4}, {5}, {6}, {7}});
  const Placement gathered(one_group(7, 8), {{0}, {0}, {0}, {0}, {0}, {0}, {0}});
  const Migration in = plan_migration(spread, gathered, cluster, 1);
  EXPECT_EQ(in.replicas, 7);
  EXPECT_EQ(in.intra_bytes, 7);
  EXPECT_EQ(in.inter_bytes, 0);
  EXPECT_EQ(in.seconds, 7);
  EXPECT_EQ(plan_migration(gathered, spread, cluster, 1).seconds, 7);
}

/// Both directions at once: what a rank gives does not wait for what it takes.
TEST(MigrationTest, DirectionsDoNotAddUp) {
  const Placement from(one_group(2, 2), {{0}, {1}});
  const Placement to(one_group(2, 2), {{1}, {0}});
  EXPECT_EQ(plan_migration(from, to, slow_cluster(1, 2), 3).seconds, 3);
  EXPECT_EQ(plan_migration(from, to, slow_cluster(2, 1), 3).seconds, 1.5);
}

TEST(MigrationTest, NodesThatReceiveMayBeTheBusiest) {
  const Placement spread(one_group(3, 4), {{1}, {2}, {3}});
  const Placement gathered(one_group(3, 4), {{0}, {0}, {0}});
  const Migration in = plan_migration(spread, gathered, slow_cluster(4, 1), 4);
  EXPECT_EQ(in.inter_bytes, 12);
  EXPECT_EQ(in.seconds, 6);
}

TEST(MigrationTest, DroppingReplicasMovesNothing) {
  const Placement both(one_group(2, 2), {{0, 1}, {0, 1}});
  const Placement one(one_group(2, 2), {{1}, {0}});
  const Migration drops = plan_migration(both, one, slow_cluster(2, 1), 5);
  EXPECT_EQ(drops.replicas, 0);
  EXPECT_EQ(drops.dropped, 2);
  EXPECT_EQ(drops.seconds, 0);
  EXPECT_EQ(drops.steps_to_pay_back(-1), 0);
  const Migration back = plan_migration(one, both, slow_cluster(2, 1), 5);
  EXPECT_EQ(back.replicas, 2);
  EXPECT_EQ(back.dropped, 0);
  EXPECT_TRUE(std::isinf(back.steps_to_pay_back(0)));
}

}  // namespace
}  // namespace cartesian::test
