#pragma once
// The register-blocked inner kernel of products of small blocks that lie in the cache: a strip of
// kStripRows rows of C times as many vectors of columns as the registers hold. Written with the
// compiler's vector types, so one text serves AVX-512, AVX2 and NEON.

#include <cstdint>

namespace cartesian {

#if defined(__AVX512F__)
inline constexpr int kLanes = 16;
#elif defined(__AVX__)
inline constexpr int kLanes = 8;
#else
inline constexpr int kLanes = 4;
#endif
/// Vectors of columns held in registers at once: rows times vectors of sums, a row of B and a
/// broadcast fit in 32 registers with AVX-512 and in 16 without.
inline constexpr int kStripVectors = kLanes == 16 ? 4 : 2;
inline constexpr int kStripRows = 4;

using Lanes [[gnu::vector_size(kLanes * sizeof(float)), gnu::aligned(4), gnu::may_alias]] = float;

/// `size` rounded up to whole vectors.
constexpr std::int64_t pad_to_lanes(std::int64_t size) {
  return (size + kLanes - 1) / kLanes * kLanes;
}

/// A[r, p] = data[r * row_stride + p * depth_stride]: a matrix or its transpose.
struct StripOperand {
  const float* data;
  std::int64_t row_stride;
  std::int64_t depth_stride;
};

template <int kVectors>
inline void strip_columns(const StripOperand& a, const float* b, std::int64_t b_stride,
                          std::int64_t depth, float* c, std::int64_t c_stride, bool accumulate) {
  Lanes sums[kStripRows][kVectors] = {};
  for (std::int64_t p = 0; p < depth; ++p) {
    const float* a_column = a.data + p * a.depth_stride;
    const auto* b_row = reinterpret_cast<const Lanes*>(b + p * b_stride);
    Lanes values[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      values[v] = b_row[v];
    }
    for (int r = 0; r < kStripRows; ++r) {
      const float factor = a_column[r * a.row_stride];
      for (int v = 0; v < kVectors; ++v) {
        sums[r][v] += factor * values[v];
      }
    }
  }
  for (int r = 0; r < kStripRows; ++r) {
    auto* c_row = reinterpret_cast<Lanes*>(c + r * c_stride);
    for (int v = 0; v < kVectors; ++v) {
      c_row[v] = accumulate ? c_row[v] + sums[r][v] : sums[r][v];
    }
  }
}

/// C[0..kStripRows, 0..columns) = A B, or += if `accumulate`. B [depth, b_stride] and C are
/// row-major. `columns` is a multiple of kLanes.
inline void strip_product(const StripOperand& a, const float* b, std::int64_t b_stride,
                          std::int64_t depth, std::int64_t columns, float* c, std::int64_t c_stride,
                          bool accumulate) {
  std::int64_t left = columns / kLanes;
  for (; left >= kStripVectors; left -= kStripVectors) {
    strip_columns<kStripVectors>(a, b, b_stride, depth, c, c_stride, accumulate);
    b += kStripVectors * kLanes;
    c += kStripVectors * kLanes;
  }
  if constexpr (kStripVectors > 2) {
    if (left == 3) {
      strip_columns<3>(a, b, b_stride, depth, c, c_stride, accumulate);
    } else if (left == 2) {
      strip_columns<2>(a, b, b_stride, depth, c, c_stride, accumulate);
    }
  }
  if (left == 1) {
    strip_columns<1>(a, b, b_stride, depth, c, c_stride, accumulate);
  }
}

}  // namespace cartesian
