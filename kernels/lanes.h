#pragma once
// One SIMD register of float32 through the compiler's vector types, so that one text serves
// AVX-512, AVX2 and NEON; for the few loops that the compiler does not vectorise well by itself.

#include <cstdint>
#include <utility>

namespace cartesian {

#if defined(__AVX512F__)
inline constexpr int kLanes = 16;
#elif defined(__AVX__)
inline constexpr int kLanes = 8;
#else
inline constexpr int kLanes = 4;
#endif

/// Loads and stores through Lanes* need float's alignment only.
using Lanes [[gnu::vector_size(kLanes * sizeof(float)), gnu::aligned(4), gnu::may_alias]] = float;

/// `size` rounded up to whole vectors.
constexpr std::int64_t pad_to_lanes(std::int64_t size) {
  return (size + kLanes - 1) / kLanes * kLanes;
}

inline Lanes load_lanes(const float* from) { return *reinterpret_cast<const Lanes*>(from); }
inline void store_lanes(float* to, Lanes value) { *reinterpret_cast<Lanes*>(to) = value; }

inline Lanes larger(Lanes a, Lanes b) { return a > b ? a : b; }

/// Stops the compiler from reading a vector again from memory at each of its uses, which would make
/// the kernel wait for loads: 90 instead of 108 GFLOP/s with GCC 12 on Zen 4.
inline void keep_in_register([[maybe_unused]] Lanes& value) {
#if defined(__AVX__)
  asm("" : "+v"(value));
#endif
}

namespace lanes_detail {

using Indices = std::make_integer_sequence<int, kLanes>;

template <int kWidth, int... kLane>
Lanes partners(Lanes value, std::integer_sequence<int, kLane...> /*lanes*/) {
  return __builtin_shufflevector(value, value, (kLane ^ kWidth)...);
}

template <int kWidth, int... kLane>
void swap_squares(Lanes& above, Lanes& below, std::integer_sequence<int, kLane...> /*lanes*/) {
  const Lanes first = above;
  above = __builtin_shufflevector(first, below,
                                  ((kLane & kWidth) ? kLanes + kLane - kWidth : kLane)...);
  below = __builtin_shufflevector(first, below,
                                  ((kLane & kWidth) ? kLanes + kLane : kLane + kWidth)...);
}

}  // namespace lanes_detail

/// op of all lanes, pairwise by halves.
template <int kWidth = kLanes / 2, class Op>
float reduce_lanes(Lanes value, const Op& op) {
  value = op(value, lanes_detail::partners<kWidth>(value, lanes_detail::Indices()));
  if constexpr (kWidth > 1) {
    return reduce_lanes<kWidth / 2>(value, op);
  } else {
    return value[0];
  }
}

/// Transposes a square of kLanes rows in registers: off-diagonal squares of kWidth lanes change
/// places, then those of half the width, and so on.
template <int kWidth = kLanes / 2>
[[gnu::always_inline]] inline void transpose_lanes(Lanes (&rows)[kLanes]) {
  for (int r = 0; r < kLanes; ++r) {
    if ((r & kWidth) == 0) {
      lanes_detail::swap_squares<kWidth>(rows[r], rows[r + kWidth], lanes_detail::Indices());
    }
  }
  if constexpr (kWidth > 1) {
    transpose_lanes<kWidth / 2>(rows);
  }
}

}  // namespace cartesian
