#include "kernels/mix.h"

#include "tests/support/op_harness.h"

namespace cartesian::test {
namespace {

constexpr float kSharedScale = 0.5F;

struct Results {
  Doubles coefficients;
  Doubles row_gates;
  Doubles shared;
};

Results reference(const Doubles& logits, const Doubles& bias, const Doubles& gates, std::size_t k) {
  Results r;
  for (std::size_t t = 0; t < logits.size() / 2; ++t) {
    const double a = std::exp(logits[2 * t] + bias[0]);
    const double b = std::exp(logits[2 * t + 1] + bias[1]);
    r.coefficients.push_back(a / (a + b));
    r.coefficients.push_back(b / (a + b));
    r.shared.push_back(kSharedScale * b / (a + b));
    for (std::size_t j = t * k; j < (t + 1) * k; ++j) {
      r.row_gates.push_back(a / (a + b) * gates[j]);
    }
  }
  return r;
}

class Mix : public testing::TestWithParam<std::pair<std::int64_t, std::int64_t>> {
 protected:
  std::int64_t tokens = GetParam().first;
  std::int64_t k = GetParam().second;
  HostTensor logits = HostTensor::random(DType::f32, {tokens, 2}, 1);
  HostTensor bias = HostTensor::random(DType::f32, {2}, 2);
  HostTensor gates = HostTensor::random(DType::f32, {tokens, k}, 3);
  HostTensor coefficients{DType::f32, {tokens, 2}};
  HostTensor row_gates{DType::f32, {tokens, k}};
  HostTensor shared{DType::f32, {tokens}};

  void forward(OpHarness& harness) {
    mix_forward(harness, logits, bias, gates, kSharedScale, coefficients, row_gates, shared);
  }
};

TEST_P(Mix, ForwardIsSoftmaxTimesGates) {
  OpHarness harness;
  forward(harness);
  const Results expected =
      reference(logits.values(), bias.values(), gates.values(), static_cast<std::size_t>(k));
  expect_close(coefficients.values(), expected.coefficients, 1e-6);
  expect_close(row_gates.values(), expected.row_gates, 1e-6);
  expect_close(shared.values(), expected.shared, 1e-6);
}

TEST_P(Mix, BackwardMatchesFiniteDifferences) {
  OpHarness harness;
  forward(harness);
  HostTensor drow_gates = HostTensor::random(DType::f32, {tokens, k}, 4);
  HostTensor dshared = HostTensor::random(DType::f32, {tokens}, 5);
  HostTensor dgates(DType::f32, {tokens, k});
  HostTensor dlogits(DType::f32, {tokens, 2});
  HostTensor dbias(DType::f32, {2}, {1, -2});
  mix_backward(harness, coefficients, gates, kSharedScale, drow_gates, dshared, dgates, dlogits,
               dbias);
  const auto objective = [&](const Doubles& l, const Doubles& b, const Doubles& g) {
    const Results r = reference(l, b, g, static_cast<std::size_t>(k));
    return dot(drow_gates.values(), r.row_gates) + dot(dshared.values(), r.shared);
  };
  const Doubles l = logits.values();
  const Doubles b = bias.values();
  const Doubles g = gates.values();
  expect_gradient(
      dlogits.values(), [&](const Doubles& x) { return objective(x, b, g); }, l, 1e-5);
  expect_gradient(
      dgates.values(), [&](const Doubles& x) { return objective(l, b, x); }, g, 1e-5);
  const Doubles added = {dbias.values()[0] - 1, dbias.values()[1] + 2};
  expect_gradient(
      added, [&](const Doubles& x) { return objective(l, x, g); }, b, 1e-4);
}

INSTANTIATE_TEST_SUITE_P(Sizes, Mix,
                         testing::Values(std::pair{0, 2}, std::pair{1, 1}, std::pair{37, 2},
                                         std::pair{20, 5}));

TEST(MixExtremes, HugeLogitsStayFinite) {
  OpHarness harness;
  HostTensor logits(DType::f32, {2, 2}, {1e30, -1e30, -3e38, 0});
  HostTensor bias(DType::f32, {2});
  HostTensor gates(DType::f32, {2, 1}, {1, 1});
  HostTensor coefficients(DType::f32, {2, 2});
  HostTensor row_gates(DType::f32, {2, 1});
  HostTensor shared(DType::f32, {2});
  mix_forward(harness, logits, bias, gates, kSharedScale, coefficients, row_gates, shared);
  EXPECT_EQ(coefficients.values(), (Doubles{1, 0, 0, 1}));
}

TEST(MixThreads, SameBits) {
  expect_same_bits_for_any_threads([](OpHarness& harness) {
    constexpr std::int64_t kTokens = 5000;
    HostTensor logits = HostTensor::random(DType::f32, {kTokens, 2}, 6);
    HostTensor bias(DType::f32, {2}, {0.5, 0});
    HostTensor gates = HostTensor::random(DType::f32, {kTokens, 2}, 7);
    HostTensor coefficients(DType::f32, {kTokens, 2});
    HostTensor row_gates(DType::f32, {kTokens, 2});
    HostTensor shared(DType::f32, {kTokens});
    mix_forward(harness, logits, bias, gates, kSharedScale, coefficients, row_gates, shared);
    HostTensor dgates(DType::f32, {kTokens, 2});
    HostTensor dlogits(DType::f32, {kTokens, 2});
    HostTensor dbias(DType::f32, {2});
    mix_backward(harness, coefficients, gates, kSharedScale, row_gates, shared, dgates, dlogits,
                 dbias);
    return std::vector<HostTensor>{coefficients, row_gates, shared, dgates, dlogits, dbias};
  });
}

}  // namespace
}  // namespace cartesian::test
