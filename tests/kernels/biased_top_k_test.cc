#include "kernels/biased_top_k.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/top_k.h"
#include "tests/support/op_harness.h"

namespace cartesian::test {
namespace {

struct Size {
  std::int64_t tokens;
  std::int64_t experts;
  std::int64_t k;
};

struct Forward {
  Forward(OpHarness& harness, HostTensor logits, HostTensor bias, std::int64_t k)
      : probabilities(DType::f32, logits.shape()),
        experts(DType::i32, {logits.shape()[0], k}),
        gates(DType::f32, {logits.shape()[0], k}) {
    biased_top_k_forward(harness, logits, bias, probabilities, experts, gates);
  }
  HostTensor probabilities;
  HostTensor experts;
  HostTensor gates;
};

class BiasedTopK : public testing::TestWithParam<Size> {};

TEST_P(BiasedTopK, ChoosesByScoreAndWeighsByProbability) {
  const Size s = GetParam();
  OpHarness harness;
  HostTensor logits = HostTensor::random(DType::f32, {s.tokens, s.experts}, 1, 2);
  HostTensor bias = HostTensor::random(DType::f32, {s.experts}, 2, 0.2);
  const Forward op(harness, logits, bias, s.k);
  const auto n = static_cast<std::size_t>(s.experts);
  const auto k = static_cast<std::size_t>(s.k);
  for (std::size_t t = 0; t < static_cast<std::size_t>(s.tokens); ++t) {
    Doubles p;
    for (std::size_t e = 0; e < n; ++e) {
      p.push_back(std::exp(logits.values()[t * n + e]));
    }
    const double sum = std::accumulate(p.begin(), p.end(), 0.0);
    for (double& value : p) {
      value /= sum;
    }
    std::vector<std::size_t> order(n);
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, std::greater<>(),
                             [&](std::size_t e) { return p[e] + bias.values()[e]; });
    order.resize(k);
    std::ranges::stable_sort(order, std::greater<>(), [&](std::size_t e) { return p[e]; });
    double chosen = 0;
    for (const std::size_t e : order) {
      chosen += p[e];
    }
    for (std::size_t j = 0; j < k; ++j) {
      EXPECT_EQ(op.experts.at<std::int32_t>(t * k + j), static_cast<std::int32_t>(order[j]));
      EXPECT_NEAR(op.gates.values()[t * k + j], k > 1 ? p[order[j]] / chosen : p[order[j]], 1e-5);
    }
  }
}

TEST_P(BiasedTopK, WithoutABiasItIsTopK) {
  const Size s = GetParam();
  OpHarness harness;
  HostTensor logits = HostTensor::random(DType::f32, {s.tokens, s.experts}, 3);
  const Forward op(harness, logits, HostTensor(DType::f32, {s.experts}), s.k);
  HostTensor probabilities(DType::f32, logits.shape());
  HostTensor experts(DType::i32, op.experts.shape());
  HostTensor gates(DType::f32, op.gates.shape());
  top_k_forward(harness, logits, probabilities, experts, gates);
  EXPECT_EQ(op.probabilities, probabilities);
  EXPECT_EQ(op.experts, experts);
  EXPECT_EQ(op.gates, gates);
}

TEST_P(BiasedTopK, SameBitsForAnyThreads) {
  const Size s = GetParam();
  expect_same_bits_for_any_threads([&](OpHarness& harness) {
    const Forward op(harness, HostTensor::random(DType::f32, {s.tokens, s.experts}, 4),
                     HostTensor::random(DType::f32, {s.experts}, 5), s.k);
    return std::vector<HostTensor>{op.probabilities, op.experts, op.gates};
  });
}

INSTANTIATE_TEST_SUITE_P(Sizes, BiasedTopK,
                         testing::Values(Size{0, 4, 2}, Size{1, 1, 1}, Size{40, 16, 2},
                                         Size{40, 16, 1}, Size{20, 33, 7}, Size{6, 5, 5}));

TEST(BiasedTopKChoice, WhatItChoosesFirstIsMasked) {
  OpHarness harness;
  HostTensor logits(DType::f32, {1, 4}, {3, 2, 1, 0});
  HostTensor bias(DType::f32, {4}, {-1, 0, 0, 2});
  mask_largest_biased(harness, 0, bias, logits);
  EXPECT_EQ(logits.values(), (Doubles{3, 2, 1, 0}));
  mask_largest_biased(harness, 2, bias, logits);
  constexpr double kMasked = -std::numeric_limits<double>::infinity();
  EXPECT_EQ(logits.values(), (Doubles{3, kMasked, 1, kMasked}));
  // A masked expert stays out, whatever its bias.
  const Forward op(harness, logits, bias, 2);
  EXPECT_EQ(op.experts, HostTensor({1, 2}, std::vector<std::int32_t>{0, 2}));
}

TEST(BiasedTopKChoice, ProbabilitiesOfZeroShareEvenly) {
  OpHarness harness;
  Forward op(harness, HostTensor(DType::f32, {1, 3}, {500, 0, 0}),
             HostTensor(DType::f32, {3}, {-2, 0, 0}), 2);
  EXPECT_EQ(op.experts, HostTensor({1, 2}, std::vector<std::int32_t>{1, 2}));
  EXPECT_EQ(op.gates.values(), (Doubles{0.5, 0.5}));
  // They are constants.
  HostTensor dlogits(DType::f32, {1, 3});
  HostTensor dgates(DType::f32, {1, 2}, {3, -1});
  top_k_backward(harness, op.probabilities, op.experts, op.gates, dgates, Tensor(), dlogits);
  EXPECT_EQ(dlogits.values(), (Doubles{0, 0, 0}));
}

TEST(BiasedTopKChoice, ProbabilitiesMayReplaceTheLogits) {
  OpHarness harness;
  HostTensor logits = HostTensor::random(DType::f32, {9, 8}, 6);
  HostTensor bias = HostTensor::random(DType::f32, {8}, 7, 0.1);
  Forward op(harness, logits, bias, 2);
  HostTensor in_place = logits;
  biased_top_k_forward(harness, in_place, bias, in_place, op.experts, op.gates);
  EXPECT_EQ(in_place, op.probabilities);
}

}  // namespace
}  // namespace cartesian::test
