#include "kernels/jitter.h"

#include "tests/support/op_harness.h"

namespace cartesian::test {
namespace {

constexpr std::int64_t kRows = 50;
constexpr std::int64_t kColumns = 11;
constexpr Jitter kJitter{.epsilon = 0.25F, .key = 77, .first_row = std::int64_t{1} << 40};

HostTensor ones(std::int64_t rows) {
  return {DType::f32, {rows, kColumns}, Doubles(static_cast<std::size_t>(rows * kColumns), 1.0)};
}

TEST(JitterTest, IsTheDocumentedNoise) {
  OpHarness harness;
  HostTensor x = HostTensor::random(DType::f32, {kRows, kColumns}, 1);
  HostTensor out(DType::f32, {kRows, kColumns});
  apply_jitter(harness, kJitter, x, out);
  double sum = 0;
  for (std::int64_t r = 0; r < kRows; ++r) {
    for (std::int64_t c = 0; c < kColumns; ++c) {
      const auto words = philox(kJitter.key, static_cast<std::uint64_t>(kJitter.first_row + r),
                                static_cast<std::uint64_t>(c / 4));
      const double u = (words.at(static_cast<std::size_t>(c % 4)) >> 8) * 0x1p-24;
      const double factor = 1 + kJitter.epsilon * (2 * u - 1);
      const auto i = static_cast<std::size_t>(r * kColumns + c);
      EXPECT_NEAR(out.values()[i], x.values()[i] * factor, 1e-6);
      EXPECT_GE(factor, 0.75);
      EXPECT_LT(factor, 1.25);
      sum += factor;
    }
  }
  EXPECT_NEAR(sum / (kRows * kColumns), 1, 0.03);  // 0.144 / sqrt(550), times 5
}

TEST(JitterTest, DoesNotDependOnHowRowsAreSplit) {
  OpHarness harness;
  HostTensor whole = ones(kRows);
  apply_jitter(harness, kJitter, whole, whole);
  for (std::int64_t r = 0; r < kRows; r += 7) {
    Jitter jitter = kJitter;
    jitter.first_row += r;
    HostTensor row = ones(1);
    apply_jitter(harness, jitter, row, row);
    for (std::int64_t c = 0; c < kColumns; ++c) {
      EXPECT_EQ(row.at<float>(static_cast<std::size_t>(c)),
                whole.at<float>(static_cast<std::size_t>(r * kColumns + c)));
    }
  }
}

TEST(JitterTest, SameBitsForAnyThreads) {
  expect_same_bits_for_any_threads([&](OpHarness& harness) {
    HostTensor x = HostTensor::random(DType::f32, {3000, kColumns}, 2);
    apply_jitter(harness, kJitter, x, x);
    return std::vector<HostTensor>{x};
  });
}

}  // namespace
}  // namespace cartesian::test
