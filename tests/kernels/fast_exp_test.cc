#include "kernels/fast_exp.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace cartesian {
namespace {

/// The distance of `value` from `exact` in units of the last place of float32 at `exact`.
double ulps(float value, double exact) {
  const double place = std::ldexp(1.0, std::ilogb(exact) - 23);
  return std::abs(static_cast<double>(value) - exact) / place;
}

TEST(FastExp, IsWithinOneUlpWhereTheResultIsNormal) {
  double worst = 0.0;
  for (double x = -87.33; x < 88.72; x += 1.0 / 4099.0) {
    const auto argument = static_cast<float>(x);
    worst = std::max(worst, ulps(fast_exp(argument), std::exp(static_cast<double>(argument))));
  }
  EXPECT_LT(worst, 1.0);
}

TEST(FastExp, HandlesTheEndsOfTheRange) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(fast_exp(0.0F), 1.0F);
  EXPECT_EQ(fast_exp(-kInfinity), 0.0F);
  EXPECT_EQ(fast_exp(-1e30F), 0.0F);
  EXPECT_EQ(fast_exp(kInfinity), kInfinity);
  EXPECT_EQ(fast_exp(88.73F), kInfinity);
  EXPECT_TRUE(std::isfinite(fast_exp(88.72F)));
  EXPECT_TRUE(std::isnan(fast_exp(std::numeric_limits<float>::quiet_NaN())));
}

TEST(FastExp, UnderflowsGradually) {
  for (float x = -103.0F; x < -87.34F; x += 0.01F) {
    const double exact = std::exp(static_cast<double>(x));
    EXPECT_NEAR(fast_exp(x), exact, 1.5 * std::ldexp(1.0, -149)) << x;
  }
}

TEST(FastSigmoid, IsWithinThreeUlp) {
  double worst = 0.0;
  for (double x = -87.0; x < 87.0; x += 1.0 / 1031.0) {
    const auto argument = static_cast<float>(x);
    const double exact = 1.0 / (1.0 + std::exp(-static_cast<double>(argument)));
    worst = std::max(worst, ulps(fast_sigmoid(argument), exact));
  }
  EXPECT_LT(worst, 3.0);
  EXPECT_EQ(fast_sigmoid(1000.0F), 1.0F);
  EXPECT_EQ(fast_sigmoid(-1000.0F), 0.0F);
}

}  // namespace
}  // namespace cartesian
