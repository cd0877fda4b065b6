#include "kernels/gemm.h"

#include <omp.h>

#include <barrier>
#include <thread>
#include <utility>

#include "kernels/onednn.h"
#include "tests/support/op_harness.h"

namespace cartesian::test {
namespace {

struct Size {
  std::int64_t rows;
  std::int64_t out;
  std::int64_t in;
};

// Element (i, j) is the sum over k of a[i, k] * b[j, k]; each is n x k, or k x n if `transposed`.
Doubles product(const Doubles& a, bool a_transposed, const Doubles& b, bool b_transposed,
                std::int64_t m, std::int64_t n, std::int64_t k) {
  Doubles c(static_cast<std::size_t>(m * n));
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (std::int64_t l = 0; l < k; ++l) {
        sum += a[static_cast<std::size_t>(a_transposed ? l * m + i : i * k + l)] *
               b[static_cast<std::size_t>(b_transposed ? l * n + j : j * k + l)];
      }
      c[static_cast<std::size_t>(i * n + j)] = sum;
    }
  }
  return c;
}

class Gemm : public testing::TestWithParam<std::tuple<DType, Size>> {
 protected:
  DType dtype = std::get<0>(GetParam());
  Size size = std::get<1>(GetParam());
  HostTensor x = HostTensor::random(dtype, {size.rows, size.in}, 1);
  HostTensor dy = HostTensor::random(dtype, {size.rows, size.out}, 2);
  // Values that bfloat16 holds exactly, so that packing rounds nothing and what is left is the
  // rounding of float32 sums, relative to their root mean square, and of the result.
  HostTensor w{DType::f32,
               {size.out, size.in},
               HostTensor::random(DType::bf16, {size.out, size.in}, 3).values()};

  double tolerance(DType output) const { return tolerance_of(output, 1e-5); }
  PackedWeight packed(const Context& context) {
    PackedWeight weight;
    weight.pack(context, w, dtype);
    return weight;
  }
};

TEST_P(Gemm, ForwardMultipliesByTheTransposedWeight) {
  OpHarness harness(2);
  const PackedWeight weight = packed(harness);
  const Doubles expected =
      product(x.values(), false, w.values(), false, size.rows, size.out, size.in);
  for (const DType output : {dtype, DType::f32}) {
    HostTensor y(output, {size.rows, size.out});
    linear_forward(harness, x, weight, y);
    expect_close(y.values(), expected, tolerance(output));
  }
}

TEST_P(Gemm, BackwardInputMultipliesByTheWeight) {
  OpHarness harness(2);
  const PackedWeight weight = packed(harness);
  const Doubles expected =
      product(dy.values(), false, w.values(), true, size.rows, size.in, size.out);
  for (const DType output : {dtype, DType::f32}) {
    HostTensor dx(output, {size.rows, size.in});
    linear_backward_input(harness, dy, weight, dx);
    expect_close(dx.values(), expected, tolerance(output));
  }
}

TEST_P(Gemm, BackwardWeightAddsToTheGradient) {
  OpHarness harness(2);
  HostTensor dw = HostTensor::random(DType::f32, {size.out, size.in}, 4);
  Doubles expected = product(dy.values(), true, x.values(), true, size.out, size.in, size.rows);
  const Doubles before = dw.values();
  for (std::size_t i = 0; i < expected.size(); ++i) {
    expected[i] = before[i] + 2 * expected[i];
  }
  linear_backward_weight(harness, dy, x, dw);
  linear_backward_weight(harness, dy, x, dw);
  expect_close(dw.values(), expected, 1e-5);
}

TEST_P(Gemm, HasTheSameBitsForAnyThreads) {
  expect_same_bits_for_any_threads([&](const Context& context) {
    const PackedWeight weight = packed(context);
    std::vector<HostTensor> results{
        {dtype, {size.rows, size.out}},
        {dtype, {size.rows, size.in}},
        {DType::f32, {size.out, size.in}},
    };
    linear_forward(context, x, weight, results[0]);
    linear_backward_input(context, dy, weight, results[1]);
    linear_backward_weight(context, dy, x, results[2]);
    linear_backward_weight(context, dy, x, results[2]);
    return results;
  });
}

// A token's result must not depend on how many others share its batch: runs at other world sizes
// are compared with each other.
TEST_P(Gemm, HasTheSameBitsForARowAloneAndInABatch) {
  if (size.rows == 0) {
    return;
  }
  OpHarness harness;
  const PackedWeight weight = packed(harness);
  HostTensor together(dtype, {size.rows, size.out});
  linear_forward(harness, x, weight, together);
  const std::int64_t last = size.rows - 1;
  HostTensor alone(dtype, {1, size.out});
  linear_forward(harness, x.tensor().slice(last, 1), weight, alone);
  const Doubles all = together.values();
  const Doubles tail(all.end() - size.out, all.end());
  EXPECT_EQ(alone.values(), tail);
}

INSTANTIATE_TEST_SUITE_P(
    Sizes, Gemm,
    testing::Combine(testing::Values(DType::f32, DType::bf16),
                     testing::Values(Size{0, 5, 3}, Size{1, 1, 1}, Size{1, 64, 48}, Size{2, 3, 257},
                                     Size{13, 31, 7}, Size{64, 96, 128}, Size{127, 101, 61},
                                     Size{300, 192, 70}, Size{1030, 33, 40}, Size{2063, 65, 24},
                                     Size{1024, 10, 96}, Size{33, 40, 1537}, Size{16, 257, 384})),
    [](const auto& test) {
      const Size& s = std::get<1>(test.param);
      return std::string(name_of(std::get<0>(test.param))) + "_" + std::to_string(s.rows) + "x" +
             std::to_string(s.out) + "x" + std::to_string(s.in);
    });

TEST(PackedWeight, ReusesItsMemoryAndFollowsItsSizes) {
  OpHarness harness;
  HostTensor small = HostTensor::random(DType::f32, {8, 6}, 1);
  HostTensor large = HostTensor::random(DType::f32, {40, 70}, 2);
  HostTensor x = HostTensor::random(DType::f32, {3, 70}, 3);
  HostTensor y(DType::f32, {3, 40});
  PackedWeight weight;
  EXPECT_EQ(weight.bytes(), 0U);
  weight.pack(harness, small, DType::bf16);
  weight.pack(harness, large, DType::f32);
  EXPECT_EQ(weight.out_features(), 40);
  EXPECT_EQ(weight.in_features(), 70);
  EXPECT_EQ(weight.dtype(), DType::f32);
  const std::size_t bytes = weight.bytes();
  EXPECT_GE(bytes, 2U * 40 * 70 * sizeof(float));
  large.set(0, 17);
  weight.pack(harness, large, DType::f32);
  EXPECT_EQ(weight.bytes(), bytes);
  PackedWeight moved = std::move(weight);
  linear_forward(harness, x, moved, y);
  expect_close(y.values(), product(x.values(), false, large.values(), false, 3, 40, 70), 1e-5);
  moved.pack(harness, large, DType::f32, /*for_backward=*/false);
  EXPECT_LT(moved.bytes(), bytes);
}

TEST(PackedWeight, RoundsToTheComputeDtype) {
  OpHarness harness;
  HostTensor w = HostTensor::random(DType::f32, {37, 53}, 1);
  HostTensor rounded(DType::bf16, {37, 53}, w.values());
  HostTensor x = HostTensor::random(DType::bf16, {5, 53}, 2);
  HostTensor y(DType::f32, {5, 37});
  PackedWeight weight;
  weight.pack(harness, w, DType::bf16);
  linear_forward(harness, x, weight, y);
  expect_close(y.values(), product(x.values(), false, rounded.values(), false, 5, 37, 53), 1e-5);
}

TEST(Onednn, LeavesTheCallersThreadsAlone) {
  omp_set_num_threads(3);
  OpHarness harness(2);
  HostTensor a = HostTensor::random(DType::f32, {9, 5}, 1);
  HostTensor b = HostTensor::random(DType::f32, {9, 7}, 2);
  HostTensor c(DType::f32, {5, 7});
  onednn::add_transposed_product(harness, a, b, c);
  EXPECT_EQ(omp_get_max_threads(), 3);
  omp_set_num_threads(1);
  expect_close(c.values(), product(a.values(), true, b.values(), true, 5, 7, 9), 1e-5);
}

// oneDNN leaves results unwritten where it gets fewer threads than it was promised.
TEST(Gemm, IsRightWhereOpenMpGivesFewerThreads) {
  HostTensor w = HostTensor::random(DType::f32, {192, 64}, 1);
  HostTensor x = HostTensor::random(DType::f32, {96, 64}, 2);
  const Doubles expected = product(x.values(), false, w.values(), false, 96, 192, 64);
  OpHarness owner;
  PackedWeight weight;
  weight.pack(owner, w, DType::f32);
  std::vector<HostTensor> results(2, HostTensor(DType::f32, {96, 192}));
#pragma omp parallel for num_threads(2) schedule(static, 1)
  for (std::size_t i = 0; i < 2; ++i) {
    OpHarness harness(4);
    linear_forward(harness, x, weight, results[i]);
  }
  omp_set_dynamic(1);
  OpHarness harness(4);
  HostTensor y(DType::f32, {96, 192});
  linear_forward(harness, x, weight, y);
  EXPECT_NE(omp_get_dynamic(), 0);
  omp_set_dynamic(0);
  for (const HostTensor& result : {results[0], results[1], y}) {
    expect_close(result.values(), expected, 1e-5);
  }
}

TEST(Gemm, NeedsFewPrimitivesHoweverTokensFall) {
  OpHarness harness;
  HostTensor w = HostTensor::random(DType::f32, {6, 5}, 1);
  HostTensor x = HostTensor::random(DType::f32, {700, 5}, 2);
  HostTensor y(DType::f32, {700, 6});
  PackedWeight weight;
  weight.pack(harness, w, DType::f32);
  const std::int64_t before = onednn::cache_state().made;
  for (std::int64_t rows = 1; rows <= 700; ++rows) {
    linear_forward(harness, x.tensor().slice(0, rows), weight, y.tensor().slice(0, rows));
  }
  // 15 up to 16 rows, then 8 per octave.
  EXPECT_LE(onednn::cache_state().made, before + 15 + 8 * 6);
}

TEST(Onednn, BoundsItsCache) {
  OpHarness harness;
  HostTensor a = HostTensor::random(DType::f32, {2, 1}, 1);
  HostTensor c(DType::f32, {1, 1});
  onednn::add_transposed_product(harness, a, a, c);
  for (std::int64_t width = 2; width <= 2 + onednn::kMaxPrimitives; ++width) {
    HostTensor wide(DType::f32, {2, width});
    HostTensor row(DType::f32, {1, width});
    onednn::add_transposed_product(harness, a, wide, row);
  }
  EXPECT_EQ(onednn::cache_state().primitives, onednn::kMaxPrimitives);
  onednn::add_transposed_product(harness, a, a, c);  // whose primitive was evicted
  const Doubles values = a.values();
  EXPECT_NEAR(c.at<float>(0), 2 * (values[0] * values[0] + values[1] * values[1]), 1e-5);
}

TEST(Gemm, TakesNoMoreScratchAfterTheFirstRound) {
  OpHarness harness;
  HostTensor w = HostTensor::random(DType::f32, {96, 80}, 1);
  HostTensor x = HostTensor::random(DType::bf16, {48, 80}, 2);
  HostTensor y(DType::bf16, {48, 96});
  HostTensor dw(DType::f32, {96, 80});
  PackedWeight weight;
  Arena& scratch = harness.context().scratch;
  std::int64_t growths = 0;
  for (int step = 0; step < 4; ++step) {
    weight.pack(harness, w, DType::bf16);
    linear_forward(harness, x, weight, y);
    linear_backward_weight(harness, y, x, dw);
    scratch.reset();
    if (step == 1) {
      growths = scratch.growths();
    }
  }
  EXPECT_EQ(scratch.growths(), growths);
}

TEST(Gemm, ServesRanksThatAreThreads) {
  constexpr int kRanks = 3;
  constexpr int kRounds = 40;
  OpHarness owner;
  HostTensor w = HostTensor::random(DType::f32, {61, 47}, 1);
  PackedWeight weight;
  weight.pack(owner, w, DType::f32);
  std::barrier start(kRanks);
  const auto rank = [&](int id) {
    OpHarness harness(1 + id % 2);
    for (int round = 0; round < kRounds; ++round) {
      // The same new size on all ranks at once: they race to make the primitive.
      const std::int64_t rows = 1 + round;
      HostTensor x = HostTensor::random(DType::f32, {rows, 47}, static_cast<std::uint64_t>(id));
      HostTensor y(DType::f32, {rows, 61});
      HostTensor dw(DType::f32, {61, 47});
      start.arrive_and_wait();
      linear_forward(harness, x, weight, y);
      linear_backward_weight(harness, y, x, dw);
      expect_close(y.values(), product(x.values(), false, w.values(), false, rows, 61, 47), 1e-5);
      expect_close(dw.values(), product(y.values(), true, x.values(), true, 61, 47, rows), 1e-5);
    }
  };
  std::vector<std::jthread> ranks;
  for (int id = 0; id < kRanks; ++id) {
    ranks.emplace_back(rank, id);
  }
}

}  // namespace
}  // namespace cartesian::test
