#pragma once
// Balance of loads alone, by EPLB's method: the most loaded experts get replicas until all slots
// are taken; then the heaviest replica first, each to the least loaded node, and there to the least
// loaded rank.

#include <cstdint>
#include <span>
#include <vector>

namespace cartesian {

/// A slot of a node: an expert, and the choices that it will serve there.
struct Slot {
  int expert = 0;
  std::int64_t load = 0;
};

/// Replicas of each expert, together `slots` if `most` of each allow it: again and again one more
/// for the expert whose replicas have most load each. REQUIRES: slots >= loads.size().
std::vector<int> replica_counts(std::span<const std::int64_t> loads, int slots, int most);

/// [nodes] slots, at most slots[node] of them. Replicas of an expert go to different nodes while
/// there are any left.
std::vector<std::vector<Slot>> balance_nodes(std::span<const std::int64_t> loads,
                                             std::span<const int> replicas,
                                             std::span<const int> slots);

}  // namespace cartesian
