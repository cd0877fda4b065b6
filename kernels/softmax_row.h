#pragma once
// Softmax of one row, float32.

#include <algorithm>
#include <cstdint>
#include <limits>

#include "kernels/fast_exp.h"

namespace cartesian {

/// The largest of row[0..count). REQUIRES: count > 0.
inline float max_of_row(const float* row, std::int64_t count) {
  float largest = -std::numeric_limits<float>::infinity();
#pragma omp simd reduction(max : largest)
  for (std::int64_t i = 0; i < count; ++i) {
    largest = std::max(largest, row[i]);
  }
  return largest;
}

/// out[i] = exp(row[i] - shift); returns their sum. May be in place.
inline float exp_of_row(const float* row, float shift, std::int64_t count, float* out) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < count; ++i) {
    const float value = fast_exp(row[i] - shift);
    out[i] = value;
    sum += value;
  }
  return sum;
}

/// out = softmax(row). May be in place. REQUIRES: count > 0.
inline void softmax_row(const float* row, std::int64_t count, float* out) {
  const float scale = 1.0F / exp_of_row(row, max_of_row(row, count), count, out);
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    out[i] *= scale;
  }
}

}  // namespace cartesian
