#include "scheduler/load_statistics.h"

#include <gtest/gtest.h>

#include <cmath>

namespace cartesian {
namespace {

using Loads = std::vector<double>;

TEST(LoadStatistics, OfUnevenLoads) {
  const Loads loads = {6, 2, 0, 0};  // mean 2; deviations 4, 0, -2, -2
  EXPECT_DOUBLE_EQ(balancedness(loads), 2.0 / 6);
  EXPECT_DOUBLE_EQ(imbalance(loads), 3.0);
  EXPECT_DOUBLE_EQ(coefficient_of_variation(loads), std::sqrt(24.0 / 4) / 2);
  const double entropy = -(0.75 * std::log(0.75) + 0.25 * std::log(0.25));
  EXPECT_DOUBLE_EQ(normalized_entropy(loads), entropy / std::log(4.0));
  EXPECT_EQ(dead_experts(loads), 2);
}

TEST(LoadStatistics, OfEqualLoads) {
  const Loads loads(8, 5.0);
  EXPECT_DOUBLE_EQ(balancedness(loads), 1);
  EXPECT_DOUBLE_EQ(imbalance(loads), 1);
  EXPECT_DOUBLE_EQ(coefficient_of_variation(loads), 0);
  EXPECT_DOUBLE_EQ(normalized_entropy(loads), 1);
  EXPECT_EQ(dead_experts(loads), 0);
  EXPECT_DOUBLE_EQ(normalized_entropy(Loads{3}), 1);
  EXPECT_DOUBLE_EQ(normalized_entropy(Loads{3, 0}), 0);
}

TEST(LoadStatistics, Medians) {
  EXPECT_EQ(median({3}), 3);
  EXPECT_EQ(median({9, 1, 2}), 2);
  EXPECT_EQ(median({9, 1, 2, 4}), 3);
}

/// Ranks 0, 1 on node 0 and 2, 3 on node 1; one layer; A and B of two experts.
class PlacedLoads : public ::testing::Test {
 protected:
  const std::vector<int> nodes_{0, 0, 1, 1};
  const Placement placement_{{1, 2, 2, 4}, {{0}, {2}, {1, 3}, {3}}};
};

TEST_F(PlacedLoads, ReplicasShareEvenly) {
  EXPECT_EQ(rank_loads(placement_, 0, Loads{10, 20, 8, 6}), (Loads{10, 4, 20, 10}));
}

TEST_F(PlacedLoads, PairsAreTogetherOnACommonNode) {
  // A0 on node 0, A1 on 1; B0 on both, B1 on 1: of the pairs only A0 with B1 is apart.
  EXPECT_DOUBLE_EQ(colocation_rate(placement_, nodes_, 0, Loads{1, 2, 3, 4}), 0.8);
}

TEST_F(PlacedLoads, FlatRowsCrossForChoicesElsewhere) {
  const std::vector<float> loads = {1, 10, 100, 1000};
  EXPECT_EQ(flat_rows(placement_, nodes_, 1, loads, 4),
            4 * (10 + 1000));  // A1 and B1 are on node 1
  EXPECT_EQ(flat_rows(placement_, nodes_, 2, loads, 4), 4 * 1);
  EXPECT_EQ(flat_rows(placement_, nodes_, 2, loads, 6), 6 * 1);
}

}  // namespace
}  // namespace cartesian
