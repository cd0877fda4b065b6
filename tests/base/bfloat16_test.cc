#include "base/bfloat16.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/dtype.h"

namespace cartesian {
namespace {

TEST(Bfloat16, EveryValueSurvivesARoundTrip) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const bfloat16 value{static_cast<std::uint16_t>(bits)};
    const float wide = to_float(value);
    const bfloat16 back = to_bfloat16(wide);
    if (std::isnan(wide)) {
      ASSERT_TRUE(std::isnan(to_float(back))) << bits;
    } else {
      ASSERT_EQ(back.bits, bits);
    }
  }
}

TEST(Bfloat16, RoundsToNearestAndTiesToEven) {
  const auto round = [](std::uint32_t bits) {
    return to_bfloat16(std::bit_cast<float>(bits)).bits;
  };
  EXPECT_EQ(round(0x3F807FFF), 0x3F80);  // below the middle
  EXPECT_EQ(round(0x3F808000), 0x3F80);  // the middle, even below
  EXPECT_EQ(round(0x3F808001), 0x3F81);  // above the middle
  EXPECT_EQ(round(0x3F818000), 0x3F82);  // the middle, even above
  EXPECT_EQ(round(0xBF818000), 0xBF82);  // sign does not matter
  EXPECT_EQ(round(0x00008000), 0x0000);  // subnormals too
  EXPECT_EQ(round(0x00018000), 0x0002);
  EXPECT_EQ(round(0x3FFFFFFF), 0x4000);  // carries into the exponent
}

TEST(Bfloat16, KeepsWhatIsNotFinite) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(to_float(to_bfloat16(infinity)), infinity);
  EXPECT_EQ(to_float(to_bfloat16(-infinity)), -infinity);
  EXPECT_EQ(to_float(to_bfloat16(std::numeric_limits<float>::max())), infinity);
  // A NaN whose payload lies in the lower half must not become an infinity.
  EXPECT_TRUE(std::isnan(to_float(to_bfloat16(std::bit_cast<float>(0x7F800001U)))));
  EXPECT_TRUE(std::isnan(to_float(to_bfloat16(std::bit_cast<float>(0xFFFFFFFFU)))));
  EXPECT_TRUE(std::signbit(to_float(to_bfloat16(-0.0F))));
}

TEST(Bfloat16, ConvertsGenerically) {
  EXPECT_EQ(from_float<float>(1.2345F), 1.2345F);
  EXPECT_EQ(to_float(from_float<bfloat16>(1.5F)), 1.5F);
}

TEST(DType, SizesAndNames) {
  EXPECT_EQ(size_of(DType::f32), sizeof(float));
  EXPECT_EQ(size_of(DType::bf16), sizeof(bfloat16));
  EXPECT_EQ(size_of(DType::i32), sizeof(std::int32_t));
  EXPECT_EQ(size_of(DType::i64), sizeof(std::int64_t));
  EXPECT_EQ(name_of(DType::bf16), "bfloat16");
  EXPECT_EQ(dtype_of<bfloat16>, DType::bf16);
}

}  // namespace
}  // namespace cartesian
