#include "kernels/z_loss.h"

#include <cmath>

#include "tests/support/op_harness.h"

namespace cartesian::test {
namespace {

constexpr std::int64_t kTokens = 37;

class ZLoss : public testing::TestWithParam<std::int64_t> {
 protected:
  std::int64_t experts = GetParam();
  HostTensor logits = HostTensor::random(DType::f32, {kTokens, experts}, 1, 3);

  double log_sum_exp_of(const Doubles& values, std::int64_t token) const {
    double sum = 0;
    for (std::int64_t e = 0; e < experts; ++e) {
      sum += std::exp(values[static_cast<std::size_t>(token * experts + e)]);
    }
    return std::log(sum);
  }
  HostTensor softmax() const {
    HostTensor p(DType::f32, logits.shape());
    for (std::size_t i = 0; i < p.size(); ++i) {
      const auto token = static_cast<std::int64_t>(i) / experts;
      p.set(i, std::exp(logits.values()[i] - log_sum_exp_of(logits.values(), token)));
    }
    return p;
  }
};

TEST_P(ZLoss, LogSumExp) {
  OpHarness harness;
  HostTensor z(DType::f32, {kTokens});
  log_sum_exp(harness, logits, z);
  for (std::int64_t t = 0; t < kTokens; ++t) {
    EXPECT_NEAR(z.values()[static_cast<std::size_t>(t)], log_sum_exp_of(logits.values(), t), 1e-5);
  }
}

TEST_P(ZLoss, BackwardMatchesFiniteDifferencesAndAdds) {
  constexpr float kScale = 0.25F;
  OpHarness harness;
  HostTensor z(DType::f32, {kTokens});
  log_sum_exp(harness, logits, z);
  const HostTensor before = HostTensor::random(DType::f32, logits.shape(), 2);
  HostTensor dlogits = before;
  HostTensor p = softmax();
  z_loss_backward(harness, p, z, kScale, dlogits);
  const Objective f = [&](const Doubles& x) {
    double total = dot(before.values(), x);
    for (std::int64_t t = 0; t < kTokens; ++t) {
      total += kScale * std::pow(log_sum_exp_of(x, t), 2);
    }
    return total;
  };
  expect_gradient(dlogits.values(), f, logits.values(), 1e-5);
}

TEST_P(ZLoss, SameBitsForAnyThreads) {
  expect_same_bits_for_any_threads([&](OpHarness& harness) {
    HostTensor z(DType::f32, {kTokens});
    HostTensor dlogits(DType::f32, logits.shape());
    HostTensor in = logits;
    HostTensor p = softmax();
    log_sum_exp(harness, in, z);
    z_loss_backward(harness, p, z, 1, dlogits);
    return std::vector<HostTensor>{z, dlogits};
  });
}

INSTANTIATE_TEST_SUITE_P(Experts, ZLoss, testing::Values(1, 16, 33));

TEST(ZLossRange, HugeLogitsStayFinite) {
  OpHarness harness;
  HostTensor logits(DType::f32, {2, 2}, {1e30, -1e30, -1e4, -1e4});
  HostTensor z(DType::f32, {2});
  log_sum_exp(harness, logits, z);
  EXPECT_FLOAT_EQ(z.at<float>(0), 1e30F);
  EXPECT_FLOAT_EQ(z.at<float>(1), -1e4F + std::log(2.0F));
}

TEST(ZLossRange, NoTokens) {
  OpHarness harness;
  HostTensor logits(DType::f32, {0, 4});
  HostTensor z(DType::f32, {0});
  log_sum_exp(harness, logits, z);
  z_loss_backward(harness, logits, z, 1, logits);
}

}  // namespace
}  // namespace cartesian::test
