#include "kernels/adamw.h"

#include "tests/support/op_harness.h"

namespace cartesian::test {
namespace {

class AdamW : public testing::TestWithParam<std::int64_t> {};

// Algorithm 2 of arXiv 1711.05101, one weight over a few steps.
double reference(double weight, const Doubles& gradients, const AdamWOptions& o) {
  double m = 0;
  double v = 0;
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    const double g = gradients[i] * o.gradient_scale;
    const auto step = static_cast<double>(i + 1);
    m = o.beta1 * m + (1.0 - o.beta1) * g;
    v = o.beta2 * v + (1.0 - o.beta2) * g * g;
    const double m_hat = m / (1 - std::pow(o.beta1, step));
    const double v_hat = v / (1 - std::pow(o.beta2, step));
    weight -= o.learning_rate * (m_hat / (std::sqrt(v_hat) + o.eps) + o.weight_decay * weight);
  }
  return weight;
}

TEST_P(AdamW, FollowsThePaper) {
  OpHarness harness;
  const std::int64_t count = GetParam();
  AdamWOptions options{.learning_rate = 1e-2F, .weight_decay = 0.1F, .gradient_scale = 0.5F};
  HostTensor weight = HostTensor::random(DType::f32, {count}, 1);
  const Doubles start = weight.values();
  HostTensor m(DType::f32, {count});
  HostTensor v(DType::f32, {count});
  std::vector<Doubles> gradients(static_cast<std::size_t>(count));
  for (options.step = 1; options.step <= 5; ++options.step) {
    HostTensor gradient = HostTensor::random(DType::f32, {count}, 10 + options.step);
    for (std::size_t i = 0; i < gradients.size(); ++i) {
      gradients[i].push_back(gradient.at<float>(i));
    }
    adamw_update(harness, options, gradient, weight, m, v);
  }
  Doubles expected;
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    expected.push_back(reference(start[i], gradients[i], options));
  }
  expect_close(weight.values(), expected, 1e-6);
}

TEST_P(AdamW, SameBitsForAnyThreads) {
  expect_same_bits_for_any_threads([](OpHarness& harness) {
    const std::int64_t count = GetParam();
    HostTensor gradient = HostTensor::random(DType::f32, {count}, 2);
    HostTensor weight = HostTensor::random(DType::f32, {count}, 3);
    HostTensor m = HostTensor::random(DType::f32, {count}, 4);
    HostTensor v(DType::f32, {count});
    adamw_update(harness, {.learning_rate = 1e-3F, .weight_decay = 0.1F, .step = 3}, gradient,
                 weight, m, v);
    return std::vector<HostTensor>{weight, m, v};
  });
}

INSTANTIATE_TEST_SUITE_P(Sizes, AdamW, testing::Values(0, 1, 33, 9001));

TEST(AdamWEdge, ZeroGradientOnlyDecays) {
  OpHarness harness;
  HostTensor gradient(DType::f32, {1});
  HostTensor weight(DType::f32, {1}, {2});
  HostTensor m(DType::f32, {1});
  HostTensor v(DType::f32, {1});
  adamw_update(harness, {.learning_rate = 0.5F, .weight_decay = 0.25F}, gradient, weight, m, v);
  EXPECT_EQ(weight.values()[0], 1.75);
}

}  // namespace
}  // namespace cartesian::test
