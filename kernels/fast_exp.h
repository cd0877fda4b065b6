#pragma once
// exp and sigmoid of a float32 without calls or branches, so that loops over them vectorise without
// -ffast-math. Range reduction and polynomial of Cephes' expf (S. Moshier,
// netlib.org/cephes/single): within 1 ulp where exp(x) is normal (the test measures it), gradual
// underflow to 0 below, infinity above 88.7228, NaN for NaN.

#include <bit>
#include <cstdint>

namespace cartesian {

inline float fast_exp(float x) {
  constexpr float kLowest = -104.0F;  // exp rounds to zero here
  constexpr float kHighest = 89.0F;   // and overflows here
  constexpr float kLog2E = 1.44269504088896341F;
  constexpr float kLn2High = 0.693359375F;  // 9 bits: times n it is exact
  constexpr float kLn2Low = -2.12194440e-4F;
  constexpr float kRoundToInteger =
      12582912.0F;  // 1.5 * 2^23: adding it leaves the nearest integer

  x = x < kLowest ? kLowest : x;
  x = x > kHighest ? kHighest : x;
  const float shifted = x * kLog2E + kRoundToInteger;
  const float n = shifted - kRoundToInteger;
  float r = x - n * kLn2High;
  r = r - n * kLn2Low;

  float p = 1.9875691500e-4F;
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * (r * r) + r + 1.0F;

  // 2^n in two factors, since n reaches beyond the exponents of normal numbers at both ends.
  const std::uint32_t exponent =
      std::bit_cast<std::uint32_t>(shifted) - std::bit_cast<std::uint32_t>(kRoundToInteger);
  const auto half = static_cast<std::uint32_t>(static_cast<std::int32_t>(exponent) >> 1);
  const float scale = std::bit_cast<float>((half + 127U) << 23);
  const float rest = std::bit_cast<float>((exponent - half + 127U) << 23);
  return p * scale * rest;
}

/// 1 / (1 + exp(-x)), within 3 ulp where it is normal.
inline float fast_sigmoid(float x) { return 1.0F / (1.0F + fast_exp(-x)); }

}  // namespace cartesian
