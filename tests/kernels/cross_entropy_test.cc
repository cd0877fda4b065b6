#include "kernels/cross_entropy.h"

#include "tests/support/op_harness.h"

namespace cartesian::test {
namespace {

double loss_of(const Doubles& logits, std::size_t row, std::size_t vocabulary, std::size_t target) {
  double largest = -HUGE_VAL;
  for (std::size_t v = 0; v < vocabulary; ++v) {
    largest = std::max(largest, logits[row * vocabulary + v]);
  }
  double sum = 0;
  for (std::size_t v = 0; v < vocabulary; ++v) {
    sum += std::exp(logits[row * vocabulary + v] - largest);
  }
  return std::log(sum) + largest - logits[row * vocabulary + target];
}

class CrossEntropy
    : public testing::TestWithParam<std::tuple<DType, std::pair<std::int64_t, std::int64_t>>> {
 protected:
  DType dtype = std::get<0>(GetParam());
  std::int64_t tokens = std::get<1>(GetParam()).first;
  std::int64_t vocabulary = std::get<1>(GetParam()).second;
  HostTensor logits = HostTensor::random(DType::f32, {tokens, vocabulary}, 1, 3);
  HostTensor targets = random_targets();

  HostTensor random_targets() const {
    std::vector<std::int32_t> ids(static_cast<std::size_t>(tokens));
    for (std::size_t t = 0; t < ids.size(); ++t) {
      ids[t] =
          static_cast<std::int32_t>(random_bits(2, t) % static_cast<std::uint64_t>(vocabulary));
    }
    return {{tokens}, ids};
  }
  double total(const Doubles& x) const {
    double sum = 0;
    for (std::size_t t = 0; t < targets.size(); ++t) {
      sum += loss_of(x, t, static_cast<std::size_t>(vocabulary),
                     static_cast<std::size_t>(targets.at<std::int32_t>(t)));
    }
    return sum;
  }
};

TEST_P(CrossEntropy, LossesAndGradient) {
  OpHarness harness;
  constexpr float kScale = 0.25F;
  HostTensor losses(DType::f32, {tokens});
  HostTensor dlogits(dtype, {tokens, vocabulary});
  cross_entropy(harness, logits, targets, kScale, losses, dlogits);
  Doubles expected;
  for (std::size_t t = 0; t < losses.size(); ++t) {
    expected.push_back(loss_of(logits.values(), t, static_cast<std::size_t>(vocabulary),
                               static_cast<std::size_t>(targets.at<std::int32_t>(t))));
  }
  expect_close(losses.values(), expected, 1e-6);
  expect_gradient(
      dlogits.values(), [&](const Doubles& x) { return kScale * total(x); }, logits.values(),
      tolerance_of(dtype), 50);
}

TEST_P(CrossEntropy, GradientMayReplaceTheLogits) {
  OpHarness harness;
  HostTensor losses(DType::f32, {tokens});
  HostTensor dlogits(DType::f32, {tokens, vocabulary});
  cross_entropy(harness, logits, targets, 2, losses, dlogits);
  HostTensor in_place = logits;
  HostTensor again(DType::f32, {tokens});
  cross_entropy(harness, in_place, targets, 2, again, in_place);
  EXPECT_EQ(in_place, dlogits);
  EXPECT_EQ(again, losses);
  cross_entropy(harness, logits, targets, 2, again, Tensor());
  EXPECT_EQ(again, losses);
}

TEST_P(CrossEntropy, SameBitsForAnyThreads) {
  expect_same_bits_for_any_threads([this](OpHarness& harness) {
    HostTensor losses(DType::f32, {tokens});
    HostTensor dlogits(dtype, {tokens, vocabulary});
    cross_entropy(harness, logits, targets, 1, losses, dlogits);
    return std::vector<HostTensor>{losses, dlogits};
  });
}

INSTANTIATE_TEST_SUITE_P(Sizes, CrossEntropy,
                         testing::Combine(testing::Values(DType::f32, DType::bf16),
                                          testing::Values(std::pair{0, 7}, std::pair{5, 2},
                                                          std::pair{9, 257}, std::pair{2, 5001})));

TEST(CrossEntropyExtremes, UniformLogitsOfALargeVocabulary) {
  OpHarness harness;
  constexpr std::int64_t kVocabulary = 100000;
  HostTensor logits(DType::f32, {1, kVocabulary});
  HostTensor targets({1}, {99999});
  HostTensor losses(DType::f32, {1});
  cross_entropy(harness, logits, targets, 1, losses, logits);
  EXPECT_NEAR(losses.values()[0], std::log(1e5), 1e-6);
  EXPECT_NEAR(logits.values()[0], 1e-5, 1e-11);
}

TEST(CrossEntropyExtremes, HugeLogitsStayFinite) {
  OpHarness harness;
  HostTensor logits(DType::f32, {2, 3}, {1e30, -1e30, 0, 3e4, 3e4, -3e38});
  HostTensor targets({2}, {0, 1});
  HostTensor losses(DType::f32, {2});
  HostTensor dlogits(DType::f32, {2, 3});
  cross_entropy(harness, logits, targets, 1, losses, dlogits);
  EXPECT_EQ(losses.values()[0], 0);
  EXPECT_NEAR(losses.values()[1], std::log(2.0), 1e-6);
  expect_close(dlogits.values(), {0, 0, 0, 0.5, -0.5, 0}, 1e-6);
}

TEST(CrossEntropyExtremes, NaNShowsInTheLoss) {
  OpHarness harness;
  HostTensor logits(DType::f32, {1, 3}, {0, std::nan(""), 0});
  HostTensor targets({1}, {0});
  HostTensor losses(DType::f32, {1});
  cross_entropy(harness, logits, targets, 1, losses, Tensor());
  EXPECT_TRUE(std::isnan(losses.values()[0]));
}

TEST(CrossEntropyDeathTest, TargetsMustBeInTheVocabulary) {
  OpHarness harness;
  HostTensor logits(DType::f32, {1, 3});
  HostTensor targets({1}, {3});
  HostTensor losses(DType::f32, {1});
  EXPECT_DEATH(cross_entropy(harness, logits, targets, 1, losses, Tensor()), "out of range");
}

}  // namespace
}  // namespace cartesian::test
