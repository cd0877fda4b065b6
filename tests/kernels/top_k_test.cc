#include "kernels/top_k.h"

#include <algorithm>
#include <numeric>

#include "tests/support/op_harness.h"

namespace cartesian::test {
namespace {

Doubles softmax(const Doubles& logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  Doubles p(logits.size());
  double sum = 0;
  for (std::size_t e = 0; e < p.size(); ++e) {
    sum += p[e] = std::exp(logits[e] - largest);
  }
  for (double& value : p) {
    value /= sum;
  }
  return p;
}

struct Size {
  std::int64_t tokens;
  std::int64_t experts;
  std::int64_t k;
};

struct Forward {
  Forward(OpHarness& harness, const HostTensor& logits_, const Size& s)
      : logits(logits_),
        probabilities(DType::f32, {s.tokens, s.experts}),
        experts(DType::i32, {s.tokens, s.k}),
        gates(DType::f32, {s.tokens, s.k}) {
    top_k_forward(harness, logits, probabilities, experts, gates);
  }
  HostTensor logits;
  HostTensor probabilities;
  HostTensor experts;
  HostTensor gates;
};

// sum(dgates * gates) + sum over tokens of <dprobability, p>, the choice held fixed.
double objective(const Doubles& logits, const Size& s, const HostTensor& experts,
                 const Doubles& dgates, const Doubles& dprobability) {
  double total = 0;
  const auto n = static_cast<std::size_t>(s.experts);
  const auto k = static_cast<std::size_t>(s.k);
  for (std::size_t t = 0; t < static_cast<std::size_t>(s.tokens); ++t) {
    const auto row = logits.begin() + static_cast<std::ptrdiff_t>(t * n);
    const Doubles p = softmax(Doubles(row, row + static_cast<std::ptrdiff_t>(n)));
    double chosen = 0;
    double weighted = 0;
    for (std::size_t j = t * k; j < (t + 1) * k; ++j) {
      const double gate = p[static_cast<std::size_t>(experts.at<std::int32_t>(j))];
      chosen += gate;
      weighted += dgates[j] * gate;
    }
    total += k > 1 ? weighted / chosen : weighted;
    total += dot(dprobability, p);
  }
  return total;
}

class TopK : public testing::TestWithParam<Size> {};

TEST_P(TopK, ForwardIsTheSortedSoftmax) {
  const Size s = GetParam();
  OpHarness harness;
  Forward op(harness, HostTensor::random(DType::f32, {s.tokens, s.experts}, 1, 2), s);
  const Doubles logits = op.logits.values();
  const auto n = static_cast<std::size_t>(s.experts);
  const auto k = static_cast<std::size_t>(s.k);
  Doubles probabilities;
  Doubles gates;
  for (std::size_t t = 0; t < static_cast<std::size_t>(s.tokens); ++t) {
    const auto row = logits.begin() + static_cast<std::ptrdiff_t>(t * n);
    const Doubles p = softmax(Doubles(row, row + static_cast<std::ptrdiff_t>(n)));
    std::vector<std::size_t> order(n);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return p[a] > p[b]; });
    double chosen = 0;
    for (std::size_t j = 0; j < k; ++j) {
      EXPECT_EQ(op.experts.at<std::int32_t>(t * k + j), static_cast<std::int32_t>(order[j]));
      chosen += p[order[j]];
    }
    for (std::size_t j = 0; j < k; ++j) {
      gates.push_back(k > 1 ? p[order[j]] / chosen : p[order[j]]);
    }
    probabilities.insert(probabilities.end(), p.begin(), p.end());
  }
  expect_close(op.probabilities.values(), probabilities, 1e-6);
  expect_close(op.gates.values(), gates, 1e-6);
}

TEST_P(TopK, BackwardMatchesFiniteDifferences) {
  const Size s = GetParam();
  OpHarness harness;
  Forward op(harness, HostTensor::random(DType::f32, {s.tokens, s.experts}, 2), s);
  HostTensor dgates = HostTensor::random(DType::f32, {s.tokens, s.k}, 3);
  HostTensor dprobability = HostTensor::random(DType::f32, {s.experts}, 4);
  for (const bool balanced : {true, false}) {
    HostTensor dlogits(DType::f32, {s.tokens, s.experts});
    top_k_backward(harness, op.probabilities, op.experts, op.gates, dgates,
                   balanced ? dprobability.tensor() : Tensor(), dlogits);
    const Doubles extra =
        balanced ? dprobability.values() : Doubles(static_cast<std::size_t>(s.experts));
    const Objective f = [&](const Doubles& x) {
      return objective(x, s, op.experts, dgates.values(), extra);
    };
    expect_gradient(dlogits.values(), f, op.logits.values(), 1e-5);
  }
}

TEST_P(TopK, SameBitsForAnyThreads) {
  const Size s = GetParam();
  expect_same_bits_for_any_threads([&](OpHarness& harness) {
    Forward op(harness, HostTensor::random(DType::f32, {s.tokens, s.experts}, 5), s);
    HostTensor dlogits(DType::f32, {s.tokens, s.experts});
    top_k_backward(harness, op.probabilities, op.experts, op.gates, op.gates, Tensor(), dlogits);
    return std::vector<HostTensor>{op.probabilities, op.experts, op.gates, dlogits};
  });
}

INSTANTIATE_TEST_SUITE_P(Sizes, TopK,
                         testing::Values(Size{0, 4, 2}, Size{1, 1, 1}, Size{9, 16, 2},
                                         Size{7, 16, 1}, Size{5, 33, 7}, Size{6, 5, 5},
                                         Size{300, 64, 4}));

TEST(TopKChoice, TiesGoToTheLowerId) {
  OpHarness harness;
  Forward op(harness, HostTensor(DType::f32, {2, 6}, {0, 1, 1, 0, 1, 0, 2, 2, 2, 2, 2, 2}),
             {2, 6, 4});
  const std::vector<std::int32_t> expected = {1, 2, 4, 0, 0, 1, 2, 3};
  EXPECT_EQ(op.experts, HostTensor({2, 4}, expected));
}

TEST(TopKChoice, HugeLogitsStayFinite) {
  OpHarness harness;
  Forward op(harness,
             HostTensor(DType::f32, {2, 4}, {3e38, -3e38, 1e30, 0, -1e4, -1e4, -2e4, -3e4}),
             {2, 4, 3});
  for (const HostTensor* tensor : {&op.probabilities, &op.gates}) {
    for (const double value : tensor->values()) {
      EXPECT_TRUE(std::isfinite(value));
    }
  }
  EXPECT_EQ(op.gates.values()[0], 1);
  EXPECT_EQ(op.experts, HostTensor({2, 3}, {0, 1, 2, 0, 1, 2}));
  HostTensor dlogits(DType::f32, {2, 4});
  top_k_backward(harness, op.probabilities, op.experts, op.gates, op.gates, Tensor(), dlogits);
  for (const double value : dlogits.values()) {
    EXPECT_TRUE(std::isfinite(value));
  }
}

TEST(TopKChoice, NaNLeavesValidIds) {
  OpHarness harness;
  Forward op(harness, HostTensor(DType::f32, {1, 4}, {0, std::nan(""), 1, 2}), {1, 4, 2});
  EXPECT_EQ(op.experts, HostTensor({1, 2}, {0, 1}));
}

TEST(TopKChoice, ProbabilitiesMayReplaceTheLogits) {
  OpHarness harness;
  Forward op(harness, HostTensor::random(DType::f32, {3, 8}, 6), {3, 8, 2});
  HostTensor in_place = op.logits;
  top_k_forward(harness, in_place, in_place, op.experts, op.gates);
  EXPECT_EQ(in_place, op.probabilities);
}

TEST(TopKDeathTest, KMustFit) {
  OpHarness harness;
  EXPECT_DEATH(Forward(harness, HostTensor(DType::f32, {1, 2}), {1, 2, 3}), "1 <= k <= experts");
}

}  // namespace
}  // namespace cartesian::test
