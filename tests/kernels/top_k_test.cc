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

struct TopPForward {
  TopPForward(OpHarness& harness, const HostTensor& logits_, float threshold)
      : logits(logits_),
        probabilities(DType::f32, logits.shape()),
        experts(DType::i32, choices(threshold)),
        gates(DType::f32, choices(threshold)) {
    top_p_forward(harness, threshold, logits, probabilities, experts, gates);
  }
  Shape choices(float threshold) const {
    return {logits.shape()[0], top_p_choices(threshold, logits.shape()[1])};
  }
  HostTensor logits;
  HostTensor probabilities;
  HostTensor experts;
  HostTensor gates;
};

class TopP : public testing::TestWithParam<std::pair<std::int64_t, float>> {
 protected:
  static constexpr std::int64_t kTokens = 50;
  std::int64_t experts = GetParam().first;
  float threshold = GetParam().second;
  HostTensor logits = HostTensor::random(DType::f32, {kTokens, experts}, 1, 2);
};

TEST_P(TopP, TakesExpertsUntilTheirSumExceedsTheThreshold) {
  OpHarness harness;
  const TopPForward op(harness, logits, threshold);
  const auto n = static_cast<std::size_t>(experts);
  const auto k = static_cast<std::size_t>(op.experts.shape()[1]);
  const Doubles values = logits.values();
  for (std::size_t t = 0; t < kTokens; ++t) {
    const auto row = values.begin() + static_cast<std::ptrdiff_t>(t * n);
    Doubles p = softmax(Doubles(row, row + static_cast<std::ptrdiff_t>(n)));
    double sum = 0;
    for (std::size_t j = 0; j < k; ++j) {
      const auto largest = std::max_element(p.begin(), p.end());
      const bool taken = sum <= static_cast<double>(threshold);
      EXPECT_EQ(op.experts.at<std::int32_t>(t * k + j), taken ? largest - p.begin() : -1);
      EXPECT_NEAR(op.gates.at<float>(t * k + j), taken ? *largest : 0, 1e-6);
      sum += *largest;
      *largest = -1;
    }
    EXPECT_GT(sum, threshold);
  }
}

TEST_P(TopP, BackwardMatchesFiniteDifferences) {
  OpHarness harness;
  TopPForward op(harness, logits, threshold);
  HostTensor dgates = HostTensor::random(DType::f32, op.gates.shape(), 3);
  HostTensor dprobability = HostTensor::random(DType::f32, {experts}, 4);
  HostTensor dlogits(DType::f32, {kTokens, experts});
  top_p_backward(harness, op.probabilities, op.experts, dgates, dprobability, dlogits);
  const Objective f = [&](const Doubles& x) {
    double total = 0;
    const auto n = static_cast<std::size_t>(experts);
    const auto k = static_cast<std::size_t>(op.experts.shape()[1]);
    for (std::size_t t = 0; t < kTokens; ++t) {
      const auto row = x.begin() + static_cast<std::ptrdiff_t>(t * n);
      const Doubles p = softmax(Doubles(row, row + static_cast<std::ptrdiff_t>(n)));
      total += dot(dprobability.values(), p);
      for (std::size_t j = t * k; j < (t + 1) * k; ++j) {
        const std::int32_t expert = op.experts.at<std::int32_t>(j);
        total += expert < 0 ? 0 : dgates.values()[j] * p[static_cast<std::size_t>(expert)];
      }
    }
    return total;
  };
  expect_gradient(dlogits.values(), f, logits.values(), 1e-5);
}

INSTANTIATE_TEST_SUITE_P(Sizes, TopP,
                         testing::Values(std::pair{2, 0.4F}, std::pair{4, 0.9F},
                                         std::pair{16, 0.4F}, std::pair{33, 0.99F}));

TEST(TopPChoice, EqualProbabilitiesNeedTheMost) {
  EXPECT_EQ(top_p_choices(0.4, 16), 7);
  EXPECT_EQ(top_p_choices(0.5, 16), 9);  // eight reach it, and do not exceed it
  EXPECT_EQ(top_p_choices(0.999, 16), 16);
  EXPECT_EQ(top_p_choices(0.4, 1), 1);
  OpHarness harness;
  const TopPForward op(harness, HostTensor(DType::f32, {1, 16}), 0.4F);
  EXPECT_EQ(op.experts, HostTensor({1, 7}, std::vector<std::int32_t>{0, 1, 2, 3, 4, 5, 6}));
}

TEST(MaskLargest, LeavesTheRestToBeChosen) {
  OpHarness harness;
  HostTensor logits(DType::f32, {3, 4}, {1, 4, 2, 3, 5, 5, 5, 1, -1, -2, -3, -4});
  mask_largest(harness, 0, logits);
  EXPECT_EQ(logits.values()[1], 4);
  mask_largest(harness, 2, logits);
  Forward op(harness, logits, {3, 4, 2});
  EXPECT_EQ(op.experts, HostTensor({3, 2}, std::vector<std::int32_t>{2, 0, 2, 3, 2, 3}));
  for (const std::size_t masked : {1, 3, 4, 5, 8, 9}) {
    EXPECT_LT(op.probabilities.values()[masked], 1e-30);
  }
}

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
