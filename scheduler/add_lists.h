#pragma once
// Sums of lists, element by element.

#include <algorithm>
#include <vector>

namespace cartesian {

/// `sums` grows to the length of `values` if that is more.
template <class T>
void add_to(std::vector<double>& sums, const std::vector<T>& values) {
  sums.resize(std::max(sums.size(), values.size()));
  for (std::size_t i = 0; i < values.size(); ++i) {
    sums[i] += values[i];
  }
}

}  // namespace cartesian
