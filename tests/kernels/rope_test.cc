#include "kernels/rope.h"

#include <complex>

#include "tests/support/op_harness.h"

namespace cartesian::test {
namespace {

struct Size {
  std::int64_t tokens;
  std::int64_t length;
  std::int64_t heads;
  std::int64_t head_dim;
};

constexpr float kTheta = 10000;

// Each pair (i, i + half) is a complex number multiplied by exp(i * angle).
Doubles reference(const Doubles& qkv, const Size& s, double direction) {
  Doubles out = qkv;
  const std::int64_t half = s.head_dim / 2;
  for (std::int64_t t = 0; t < s.tokens; ++t) {
    for (std::int64_t h = 0; h < 2 * s.heads; ++h) {
      for (std::int64_t i = 0; i < half; ++i) {
        const auto at = static_cast<std::size_t>((t * 3 * s.heads + h) * s.head_dim + i);
        const auto other = at + static_cast<std::size_t>(half);
        const double frequency = std::pow(
            double{kTheta}, -2.0 * static_cast<double>(i) / static_cast<double>(s.head_dim));
        const double angle = direction * static_cast<double>(t % s.length) * frequency;
        const std::complex<double> turned =
            std::complex<double>(qkv[at], qkv[other]) * std::polar(1.0, angle);
        out[at] = turned.real();
        out[other] = turned.imag();
      }
    }
  }
  return out;
}

class Rope : public testing::TestWithParam<std::tuple<DType, Size>> {
 protected:
  DType dtype = std::get<0>(GetParam());
  Size size = std::get<1>(GetParam());
  HostTensor qkv = HostTensor::random(dtype, {size.tokens, 3, size.heads, size.head_dim}, 1);
};

TEST_P(Rope, TurnsQueriesAndKeys) {
  OpHarness harness(2);
  HostAllocator memory;
  Arena arena(memory);
  const RopeTable table = make_rope_table(arena, size.length, size.head_dim, kTheta);
  for (const bool inverse : {false, true}) {
    HostTensor turned = qkv;
    rope(harness, table, size.length, turned, inverse);
    expect_close(turned.values(), reference(qkv.values(), size, inverse ? -1 : 1),
                 tolerance_of(dtype, 1e-6));
  }
}

// A rotation is orthogonal, so the inverse turns the gradient back.
TEST_P(Rope, InverseIsTheGradient) {
  OpHarness harness;
  HostAllocator memory;
  Arena arena(memory);
  const RopeTable table = make_rope_table(arena, size.length, size.head_dim, kTheta);
  HostTensor dout = HostTensor::random(dtype, {size.tokens, 3, size.heads, size.head_dim}, 2);
  const Doubles d = dout.values();
  rope(harness, table, size.length, dout, true);
  expect_gradient(
      dout.values(), [&](const Doubles& x) { return dot(d, reference(x, size, 1)); }, qkv.values(),
      tolerance_of(dtype), 60);
}

TEST_P(Rope, SameBitsForAnyThreads) {
  expect_same_bits_for_any_threads([this](OpHarness& harness) {
    HostAllocator memory;
    Arena arena(memory);
    const RopeTable table = make_rope_table(arena, size.length, size.head_dim, kTheta);
    HostTensor turned = qkv;
    rope(harness, table, size.length, turned, false);
    return std::vector<HostTensor>{turned};
  });
}

INSTANTIATE_TEST_SUITE_P(Sizes, Rope,
                         testing::Combine(testing::Values(DType::f32, DType::bf16),
                                          testing::Values(Size{0, 4, 2, 8}, Size{1, 1, 1, 2},
                                                          Size{14, 7, 3, 6},
                                                          Size{130, 65, 2, 64})));

TEST(RopeTableTest, IsAccurateAtLongLengths) {
  HostAllocator memory;
  Arena arena(memory);
  const RopeTable table = make_rope_table(arena, 100001, 4, kTheta);
  EXPECT_NEAR(table.cosines.data<float>()[200000], std::cos(100000.0), 1e-7);
  EXPECT_NEAR(table.sines.data<float>()[200001], std::sin(1000.0), 1e-7);
}

}  // namespace
}  // namespace cartesian::test
