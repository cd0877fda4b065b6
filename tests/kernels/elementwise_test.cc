#include "kernels/elementwise.h"

#include "tests/support/op_harness.h"

namespace cartesian::test {
namespace {

class Elementwise : public testing::TestWithParam<std::tuple<DType, std::int64_t>> {
 protected:
  DType dtype() const { return std::get<0>(GetParam()); }
  Shape shape() const { return {std::get<1>(GetParam()), 3}; }
};

TEST_P(Elementwise, AddRoundsTheExactSum) {
  OpHarness harness;
  HostTensor a = HostTensor::random(dtype(), shape(), 1);
  HostTensor b = HostTensor::random(dtype(), shape(), 2);
  HostTensor out(dtype(), shape());
  add(harness, a, b, out);
  HostTensor expected(dtype(), shape());
  const Doubles left = a.values();
  const Doubles right = b.values();
  for (std::size_t i = 0; i < a.size(); ++i) {
    expected.set(i, left[i] + right[i]);
  }
  EXPECT_EQ(out, expected);
  add_in_place(harness, b, a);
  EXPECT_EQ(a, expected);
}

TEST_P(Elementwise, ConvertRoundsToNearestEven) {
  OpHarness harness;
  HostTensor in = HostTensor::random(dtype(), shape(), 3);
  for (const DType to : {DType::f32, DType::bf16}) {
    HostTensor out(to, shape());
    convert(harness, in, out);
    EXPECT_EQ(out, HostTensor(to, shape(), in.values()));
  }
}

TEST_P(Elementwise, SameBitsForAnyThreads) {
  expect_same_bits_for_any_threads([this](OpHarness& harness) {
    HostTensor a = HostTensor::random(dtype(), shape(), 4);
    HostTensor b = HostTensor::random(dtype(), shape(), 5);
    add_in_place(harness, a, b);
    HostTensor wide(DType::f32, shape());
    convert(harness, b, wide);
    HostTensor sum(DType::f32, {1});
    sum.set(0, sum_of_squares(harness, wide));
    return std::vector<HostTensor>{b, wide, sum};
  });
}

INSTANTIATE_TEST_SUITE_P(Sizes, Elementwise,
                         testing::Combine(testing::Values(DType::f32, DType::bf16),
                                          testing::Values(0, 1, 7, 9001)));

TEST(SumOfSquares, HasFloat64Accuracy) {
  OpHarness harness;
  HostTensor values = HostTensor::random(DType::f32, {100003}, 6);
  const double expected = dot(values.values(), values.values());
  EXPECT_NEAR(sum_of_squares(harness, values), expected, 1e-12 * expected);
}

TEST(SumOfSquares, DoesNotOverflowWhereFloat32Would) {
  OpHarness harness;
  HostTensor values(DType::f32, {2}, {1e30, -1e30});
  EXPECT_NEAR(sum_of_squares(harness, values) / 2e60, 1, 1e-6);
}

TEST(Convert, KeepsNaNAndInfinity) {
  OpHarness harness;
  HostTensor in(DType::f32, {3}, {std::nan(""), HUGE_VAL, -HUGE_VAL});
  HostTensor out(DType::bf16, {3});
  convert(harness, in, out);
  EXPECT_TRUE(std::isnan(out.values()[0]));
  EXPECT_EQ(out.values()[1], HUGE_VAL);
  EXPECT_EQ(out.values()[2], -HUGE_VAL);
}

TEST(ElementwiseDeathTest, RefusesCuda) {
  OpHarness harness;
  Context context = harness.context();
  context.device = Device::cuda;
  HostTensor x(DType::f32, {1});
  EXPECT_DEATH(add_in_place(context, x, x), "add has no CUDA implementation");
}

}  // namespace
}  // namespace cartesian::test
