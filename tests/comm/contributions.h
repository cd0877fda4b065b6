#pragma once
// What ranks contribute to sums in tests.

#include <cstddef>
#include <cstdint>

namespace cartesian::testing_ranks {

/// Values in [-1, 1) whose sums round, so that another order of adding has other bits.
template <class T>
T contribution(int rank, std::size_t i) {
  const std::uint64_t hash =
      (i + 1) * 0x9E3779B97F4A7C15U * (2 * static_cast<std::uint64_t>(rank) + 1);
  return static_cast<T>(static_cast<double>(hash >> 11) * 0x1p-52 - 1.0);
}

}  // namespace cartesian::testing_ranks
