#pragma once
// The moment at which a wait gives up.

#include <algorithm>
#include <chrono>

#include "base/clock.h"

namespace cartesian {

/// `start` plus `timeout`, held to three years so that "for ever" does not overflow.
inline std::chrono::steady_clock::time_point deadline_after(
    std::chrono::steady_clock::time_point start, Seconds timeout) {
  constexpr Seconds kForever{1e8};
  return start + std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                     std::min(timeout, kForever));
}

}  // namespace cartesian
