#pragma once
// Which rank of its node holds an expert: every rank within its slots, the most loaded one as
// little loaded as can be found.

#include <cstdint>
#include <span>
#include <vector>

namespace cartesian {

/// [items]: which of `ranks` ranks, 0 to ranks - 1. Heaviest first to the least loaded rank with a
/// free slot, then swaps while they lower the most loaded rank. REQUIRES: items fit the slots.
std::vector<int> pack_ranks(std::span<const std::int64_t> loads, int ranks, int slots);

}  // namespace cartesian
