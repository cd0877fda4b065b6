#pragma once
// Softmax of one row, float32. Sums and maxima go by lanes: an OpenMP reduction would end each row
// with a scalar loop over the lanes, which costs more than a short row itself.

#include <cstdint>
#include <limits>

#include "kernels/fast_exp.h"
#include "kernels/lanes.h"

namespace cartesian {

/// The largest of row[0..count). NaN counts only if it comes first.
inline float max_of_row(const float* row, std::int64_t count) {
  Lanes lanes = Lanes{} - std::numeric_limits<float>::infinity();
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    lanes = larger(load_lanes(row + i), lanes);
  }
  float largest = reduce_lanes(lanes, larger);
  for (; i < count; ++i) {
    largest = row[i] > largest ? row[i] : largest;
  }
  return largest;
}

inline float sum_of_row(const float* row, std::int64_t count) {
  Lanes lanes = {};
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    lanes += load_lanes(row + i);
  }
  float sum = reduce_lanes(lanes, [](Lanes a, Lanes b) { return a + b; });
  for (; i < count; ++i) {
    sum += row[i];
  }
  return sum;
}

/// out[i] = exp(row[i] - shift). May be in place.
inline void exp_of_row(const float* row, float shift, std::int64_t count, float* out) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    out[i] = fast_exp(row[i] - shift);
  }
}

/// out = softmax(row). May be in place.
inline void softmax_row(const float* row, std::int64_t count, float* out) {
  exp_of_row(row, max_of_row(row, count), count, out);
  const float scale = 1.0F / sum_of_row(out, count);
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    out[i] *= scale;
  }
}

}  // namespace cartesian
