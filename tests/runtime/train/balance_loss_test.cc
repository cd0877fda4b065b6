// The load-balancing loss and the load figures, against sums done by hand.

#include "runtime/train/balance_loss.h"

#include <gtest/gtest.h>

#include "base/allocator.h"
#include "runtime/train/expert_load.h"

namespace cartesian {
namespace {

class BalanceLossTest : public testing::Test {
 protected:
  HostAllocator allocator_;
  Arena arena_{allocator_};
};

TEST_F(BalanceLossTest, IsSharesTimesMeanProbabilities) {
  // Four tokens, two choices each, three experts: f = (4, 3, 1) / 8, P = (2, 1.6, 0.4) / 4.
  const std::vector<RouterLoad> loads = {{.counts = {4, 3, 1}, .probabilities = {2.0, 1.6, 0.4}}};
  const BalanceLoss loss = balance_loss(arena_, loads, 4, 0.5);
  EXPECT_DOUBLE_EQ(loss.value, 3 * (0.5 * 0.5 + 0.375 * 0.4 + 0.125 * 0.1));
  ASSERT_EQ(loss.dprobability.size(), 1U);
  // d / d p of one token = scale * N * f_i / tokens.
  const auto gradient = loss.dprobability[0].span<float>();
  ASSERT_EQ(gradient.size(), 3U);
  EXPECT_FLOAT_EQ(gradient[0], 0.5F * 3 * 0.5F / 4);
  EXPECT_FLOAT_EQ(gradient[1], 0.5F * 3 * 0.375F / 4);
  EXPECT_FLOAT_EQ(gradient[2], 0.5F * 3 * 0.125F / 4);
}

TEST_F(BalanceLossTest, IsOneForEvenLoadAndSumsOverSubLayers) {
  const RouterLoad even = {.counts = {2, 2}, .probabilities = {1, 1}};
  const RouterLoad worst = {.counts = {4, 0}, .probabilities = {2, 0}};
  EXPECT_DOUBLE_EQ(balance_loss(arena_, std::vector{even}, 2, 1).value, 1);
  EXPECT_DOUBLE_EQ(balance_loss(arena_, std::vector{worst}, 2, 1).value, 2);
  const BalanceLoss both = balance_loss(arena_, std::vector{even, worst}, 2, 1);
  EXPECT_DOUBLE_EQ(both.value, 3);
  EXPECT_EQ(both.dprobability.size(), 2U);
}

TEST_F(BalanceLossTest, AAndBMayHaveCoefficientsOfTheirOwn) {
  const RouterLoad load = {.counts = {3, 1}, .probabilities = {1.5, 0.5}};
  const std::vector<RouterLoad> two_layers = {load, load, load, load};
  const BalanceLoss both = balance_loss(arena_, two_layers, 2, std::vector{0.5, 0.125});
  EXPECT_EQ(both.value, balance_loss(arena_, two_layers, 2, 1).value);
  const float one = balance_loss(arena_, two_layers, 2, 1).dprobability[0].span<float>()[0];
  for (std::size_t s = 0; s < 4; ++s) {
    EXPECT_FLOAT_EQ(both.dprobability[s].span<float>()[0], (s % 2 == 0 ? 0.5F : 0.125F) * one);
  }
}

TEST_F(BalanceLossTest, WithoutTokensItIsZero) {
  const std::vector<RouterLoad> loads = {{.counts = {0, 0}, .probabilities = {0, 0}}};
  const BalanceLoss loss = balance_loss(arena_, loads, 0, 1);
  EXPECT_EQ(loss.value, 0);
  EXPECT_EQ(loss.dprobability[0].span<float>()[1], 0);
  EXPECT_EQ(balance_loss(arena_, {}, 0, 1).value, 0);
}

TEST(ExpertLoadTest, BalancednessIsMeanOverLargest) {
  EXPECT_DOUBLE_EQ(balancedness({.counts = {4, 2, 0, 2}, .probabilities = {}}), 0.5);
  EXPECT_DOUBLE_EQ(balancedness({.counts = {3, 3}, .probabilities = {}}), 1);
  EXPECT_DOUBLE_EQ(balancedness({.counts = {8, 0, 0, 0}, .probabilities = {}}), 0.25);
  EXPECT_DOUBLE_EQ(balancedness({.counts = {0, 0}, .probabilities = {}}), 1);
  EXPECT_DOUBLE_EQ(balancedness({}), 1);
}

TEST(ExpertLoadTest, OverSubLayers) {
  const std::vector<RouterLoad> loads = {{.counts = {4, 2, 0, 2}, .probabilities = {}},
                                         {.counts = {8, 0, 0, 0}, .probabilities = {}}};
  EXPECT_DOUBLE_EQ(mean_balancedness(loads), 0.375);
  EXPECT_EQ(dead_experts(loads), 4);
  EXPECT_DOUBLE_EQ(mean_balancedness({}), 1);
  EXPECT_EQ(dead_experts({}), 0);
}

}  // namespace
}  // namespace cartesian
