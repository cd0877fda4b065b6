#pragma once
// The k largest of one row, and gates made of them; float32.

#include <algorithm>
#include <cstdint>

namespace cartesian {

// Keeps the k largest in descending order. A later value goes behind its equals, so the lower id
// comes first; ids are valid even where values are NaN.
inline void select_row(const float* p, std::int64_t count, std::int64_t k, std::int32_t* ids,
                       float* values) {
  std::int64_t size = 0;
  for (std::int64_t e = 0; e < count; ++e) {
    std::int64_t place = size;
    while (place > 0 && p[e] > values[place - 1]) {
      --place;
    }
    if (place == k) {
      continue;
    }
    size = std::min(size + 1, k);
    for (std::int64_t i = size - 1; i > place; --i) {
      values[i] = values[i - 1];
      ids[i] = ids[i - 1];
    }
    values[place] = p[e];
    ids[place] = static_cast<std::int32_t>(e);
  }
}

/// Divides the gates by their sum.
inline void normalise_gates(float* gates, std::int64_t k) {
  float sum = 0;
  for (std::int64_t j = 0; j < k; ++j) {
    sum += gates[j];
  }
  for (std::int64_t j = 0; j < k; ++j) {
    gates[j] /= sum;
  }
}

}  // namespace cartesian
