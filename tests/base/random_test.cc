#include "base/random.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <vector>

namespace cartesian {
namespace {

using Words = std::array<std::uint32_t, 4>;

// philox4x32-10 of Random123's kat_vectors (counter and key, low words first).
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox(0, 0, 0), (Words{0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8}));
  EXPECT_EQ(philox(~0ULL, ~0ULL, ~0ULL), (Words{0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD}));
  EXPECT_EQ(philox(0x299F31D0A4093822, 0x85A308D3243F6A88, 0x0370734413198A2E),
            (Words{0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1}));
}

TEST(RandomKey, DependsOnSeedAndPurpose) {
  std::set<std::uint64_t> keys;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    for (const char* purpose : {"", "a", "b", "ab", "ba", "aa"}) {
      keys.insert(random_key(seed, purpose));
    }
  }
  EXPECT_EQ(keys.size(), 600U);
  EXPECT_EQ(random_key(7, "x"), random_key(7, "x"));
}

TEST(RandomUniform, FillsBucketsEvenly) {
  constexpr int kBuckets = 64;
  constexpr int kDraws = 64'000;
  std::vector<int> counts(kBuckets);
  const std::uint64_t key = random_key(1, "uniform");
  for (std::uint64_t i = 0; i < kDraws; ++i) {
    const double value = random_uniform(key, i);
    ASSERT_GE(value, 0.0);
    ASSERT_LT(value, 1.0);
    ++counts[static_cast<std::size_t>(value * kBuckets)];
  }
  double chi_squared = 0.0;
  for (const int count : counts) {
    const double expected = double{kDraws} / kBuckets;
    chi_squared += (count - expected) * (count - expected) / expected;
  }
  // 63 degrees of freedom: mean 63, standard deviation 11.2.
  EXPECT_LT(chi_squared, 63 + 4 * 11.2);
  EXPECT_GT(chi_squared, 63 - 4 * 11.2);
}

TEST(RandomNormal, HasTheMomentsOfANormal) {
  constexpr int kDraws = 100'000;
  const std::uint64_t key = random_key(2, "normal");
  double sum = 0.0;
  double squares = 0.0;
  double fourth = 0.0;
  for (std::uint64_t i = 0; i < kDraws; ++i) {
    const double value = random_normal(key, i);
    ASSERT_TRUE(std::isfinite(value));
    sum += value;
    squares += value * value;
    fourth += value * value * value * value;
  }
  EXPECT_NEAR(sum / kDraws, 0.0, 0.015);
  EXPECT_NEAR(squares / kDraws, 1.0, 0.02);
  EXPECT_NEAR(fourth / kDraws, 3.0, 0.15);
}

TEST(RandomPermute, IsABijection) {
  for (const std::uint64_t size : {1, 2, 3, 4, 5, 7, 16, 17, 100, 1000, 4095, 4096, 4097}) {
    const std::uint64_t key = random_key(size, "permute");
    std::vector<bool> seen(size);
    for (std::uint64_t i = 0; i < size; ++i) {
      const std::uint64_t to = random_permute(key, i, size);
      ASSERT_LT(to, size);
      ASSERT_FALSE(seen[to]);
      seen[to] = true;
    }
  }
}

TEST(RandomPermute, MovesAlmostEverythingAndDiffersByKey) {
  constexpr std::uint64_t kSize = 10'000;
  int fixed = 0;
  int equal = 0;
  int ascending = 0;
  for (std::uint64_t i = 0; i + 1 < kSize; ++i) {
    const std::uint64_t to = random_permute(1, i, kSize);
    fixed += to == i ? 1 : 0;
    equal += to == random_permute(2, i, kSize) ? 1 : 0;
    ascending += to < random_permute(1, i + 1, kSize) ? 1 : 0;
  }
  EXPECT_LT(fixed, 10);
  EXPECT_LT(equal, 10);
  EXPECT_NEAR(ascending / double{kSize}, 0.5, 0.03);
}

}  // namespace
}  // namespace cartesian
