#include "base/tensor.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace cartesian {
namespace {

TEST(Shape, CountsAndPrints) {
  EXPECT_EQ(Shape().numel(), 0);
  EXPECT_EQ(Shape({5}).numel(), 5);
  EXPECT_EQ(Shape({2, 3, 4, 5}).numel(), 120);
  EXPECT_EQ(Shape({2, 0}).numel(), 0);
  EXPECT_EQ(Shape({2, 3}).to_string(), "[2, 3]");
  EXPECT_EQ(Shape({2, 3}), Shape({2, 3}));
  EXPECT_NE(Shape({2, 3}), Shape({2, 3, 1}));
}

TEST(ShapeDeathTest, RefusesImpossibleExtents) {
  EXPECT_DEATH(Shape({-1}), "negative");
  EXPECT_DEATH(Shape({1, 1, 1, 1, 1}), "four");
  EXPECT_DEATH((void)Shape({1})[1], "range");
}

TEST(Tensor, ViewsMemory) {
  std::vector<float> values(24);
  std::iota(values.begin(), values.end(), 0.0F);
  const Tensor tensor(values.data(), {2, 3, 4});
  EXPECT_TRUE(tensor.defined());
  EXPECT_FALSE(Tensor().defined());
  EXPECT_EQ(tensor.rows(), 2);
  EXPECT_EQ(tensor.cols(), 12);
  EXPECT_EQ(tensor.bytes(), 96U);
  EXPECT_EQ(tensor.dtype(), DType::f32);
  EXPECT_EQ(tensor.span<float>()[23], 23.0F);
}

TEST(Tensor, SlicesRowsOfEveryRank) {
  std::vector<float> values(24);
  std::iota(values.begin(), values.end(), 0.0F);
  EXPECT_EQ(Tensor(values.data(), {24}).slice(5, 2).span<float>()[0], 5.0F);
  EXPECT_EQ(Tensor(values.data(), {6, 4}).slice(2, 3).span<float>()[0], 8.0F);
  EXPECT_EQ(Tensor(values.data(), {4, 3, 2}).slice(3, 1).shape(), Shape({1, 3, 2}));
  EXPECT_EQ(Tensor(values.data(), {2, 3, 2, 2}).slice(1, 1).span<float>()[0], 12.0F);
  EXPECT_EQ(Tensor(values.data(), {6, 4}).slice(6, 0).numel(), 0);
}

TEST(Tensor, ReshapesInPlace) {
  std::vector<std::int32_t> values(6);
  const Tensor flat = Tensor(values.data(), {2, 3}).reshape({6});
  EXPECT_EQ(flat.raw(), values.data());
  EXPECT_EQ(flat.shape(), Shape({6}));
}

TEST(TensorDeathTest, RefusesMisuse) {
  std::vector<float> values(6);
  const Tensor tensor(values.data(), {2, 3});
  EXPECT_DEATH((void)tensor.data<std::int32_t>(), "element type");
  EXPECT_DEATH((void)tensor.slice(1, 2), "slice");
  EXPECT_DEATH((void)tensor.reshape({7}), "reshape");
}

}  // namespace
}  // namespace cartesian
