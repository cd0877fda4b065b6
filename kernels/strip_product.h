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

/// A row-major matrix.
template <class T>
struct StripMatrix {
  T* data;
  std::int64_t stride;

  T* at(std::int64_t row, std::int64_t column) const { return data + row * stride + column; }
};

template <int kVectors, bool kAccumulate>
inline void strip_columns(StripOperand a, StripMatrix<const float> b, std::int64_t depth,
                          StripMatrix<float> c) {
  Lanes sums[kStripRows][kVectors];
  for (int r = 0; r < kStripRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      sums[r][v] = kAccumulate ? load_lanes(c.at(r, v * kLanes)) : Lanes{};
    }
  }
  for (std::int64_t p = 0; p < depth; ++p) {
    const float* a_column = a.data + p * a.depth_stride;
    for (int v = 0; v < kVectors; ++v) {
      Lanes value = load_lanes(b.at(p, v * kLanes));
      keep_in_register(value);
      for (int r = 0; r < kStripRows; ++r) {
        sums[r][v] += a_column[r * a.row_stride] * value;
      }
    }
  }
  for (int r = 0; r < kStripRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      store_lanes(c.at(r, v * kLanes), sums[r][v]);
    }
  }
}

/// C [kStripRows, columns] = A B, or += if kAccumulate, for A [kStripRows, depth] and B [depth,
/// columns]. `columns` is a multiple of kLanes.
template <bool kAccumulate>
inline void strip_product(StripOperand a, StripMatrix<const float> b, std::int64_t depth,
                          std::int64_t columns, StripMatrix<float> c) {
  std::int64_t left = columns / kLanes;
  for (; left >= kStripVectors; left -= kStripVectors) {
    strip_columns<kStripVectors, kAccumulate>(a, b, depth, c);
    b.data += kStripVectors * kLanes;
    c.data += kStripVectors * kLanes;
  }
  if constexpr (kStripVectors > 2) {
    if (left == 3) {
      strip_columns<3, kAccumulate>(a, b, depth, c);
    } else if (left == 2) {
      strip_columns<2, kAccumulate>(a, b, depth, c);
    }
  }
  if (left == 1) {
    strip_columns<1, kAccumulate>(a, b, depth, c);
  }
}

}  // namespace cartesian
