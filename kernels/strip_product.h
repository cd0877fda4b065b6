#pragma once
// The register-blocked inner kernel of products of small blocks that lie in the cache: a strip of
// kStripRows rows of C times as many vectors of columns as the registers hold.

#include <cstdint>

#include "kernels/lanes.h"

namespace cartesian {

/// Vectors of columns held in registers at once: rows times vectors of sums, a row of B and a
/// broadcast fit in 32 registers with AVX-512 and in 16 without.
inline constexpr int kStripVectors = kLanes == 16 ? 4 : 2;
inline constexpr int kStripRows = 4;

/// A[r, p] = data[r * row_stride + p * depth_stride]: a matrix or its transpose.
struct StripOperand {
  const float* data;
  std::int64_t row_stride;
  std::int64_t depth_stride;
};

template <int kVectors, bool kAccumulate>
inline void strip_columns(StripOperand a, const float* b, std::int64_t b_stride, std::int64_t depth,
                          float* c, std::int64_t c_stride) {
  Lanes sums[kStripRows][kVectors];
  for (int r = 0; r < kStripRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      sums[r][v] = kAccumulate ? load_lanes(c + r * c_stride + v * kLanes) : Lanes{};
    }
  }
  for (std::int64_t p = 0; p < depth; ++p) {
    const float* a_column = a.data + p * a.depth_stride;
    for (int v = 0; v < kVectors; ++v) {
      Lanes value = load_lanes(b + p * b_stride + v * kLanes);
      keep_in_register(value);
      for (int r = 0; r < kStripRows; ++r) {
        sums[r][v] += a_column[r * a.row_stride] * value;
      }
    }
  }
  for (int r = 0; r < kStripRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      store_lanes(c + r * c_stride + v * kLanes, sums[r][v]);
    }
  }
}

/// C[0..kStripRows, 0..columns) = A B, or += if kAccumulate. B [depth, b_stride] and C are
/// row-major. `columns` is a multiple of kLanes.
template <bool kAccumulate>
inline void strip_product(const StripOperand& a, const float* b, std::int64_t b_stride,
                          std::int64_t depth, std::int64_t columns, float* c,
                          std::int64_t c_stride) {
  std::int64_t left = columns / kLanes;
  for (; left >= kStripVectors; left -= kStripVectors) {
    strip_columns<kStripVectors, kAccumulate>(a, b, b_stride, depth, c, c_stride);
    b += kStripVectors * kLanes;
    c += kStripVectors * kLanes;
  }
  if constexpr (kStripVectors > 2) {
    if (left == 3) {
      strip_columns<3, kAccumulate>(a, b, b_stride, depth, c, c_stride);
    } else if (left == 2) {
      strip_columns<2, kAccumulate>(a, b, b_stride, depth, c, c_stride);
    }
  }
  if (left == 1) {
    strip_columns<1, kAccumulate>(a, b, b_stride, depth, c, c_stride);
  }
}

}  // namespace cartesian
