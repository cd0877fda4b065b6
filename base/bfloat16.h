#pragma once
// bfloat16: the upper half of a float32. Storage only; arithmetic happens in float32.

#include <bit>
#include <cstdint>

namespace cartesian {

struct bfloat16 {
  std::uint16_t bits = 0;
};

inline float to_float(bfloat16 value) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value.bits) << 16);
}
inline float to_float(float value) { return value; }

/// Rounds to nearest even; NaN stays NaN. Written without branches so that loops vectorise.
inline bfloat16 to_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t rounded = (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16;
  const std::uint32_t quiet_nan = (bits >> 16) | 0x40U;
  const bool is_nan = (bits & 0x7FFFFFFFU) > 0x7F800000U;
  return bfloat16{static_cast<std::uint16_t>(is_nan ? quiet_nan : rounded)};
}

/// from_float<T>(x): x in storage type T.
template <class T>
T from_float(float value);
template <>
inline float from_float<float>(float value) {
  return value;
}
template <>
inline bfloat16 from_float<bfloat16>(float value) {
  return to_bfloat16(value);
}

}  // namespace cartesian
