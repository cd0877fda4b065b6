#pragma once
// Balance of loads alone, by EPLB's method, of A and of B each by itself: the most loaded experts
// get replicas until all slots are taken; then the heaviest replica first, each to the least loaded
// node.

#include <cstdint>
#include <span>
#include <vector>

namespace cartesian {

/// A slot of a node: an expert, and the choices that it will serve there.
struct Slot {
  int expert = 0;  ///< A's, then B's
  int group = 0;
  std::int64_t load = 0;
};

/// [nodes] slots, at most slots[node] of them, of which every group has its share; all taken, if
/// no expert would come to have more than `most_replicas`. Replicas of an expert go to different
/// nodes while there are any left. `loads`: [experts of A, then of B]. REQUIRES: there are slots
/// for all experts. `shares`: [nodes] of the load that each should take, in any unit; empty: as of
/// slots.
std::vector<std::vector<Slot>> balance_nodes(std::span<const std::int64_t> loads, int groups,
                                             std::span<const int> slots, int most_replicas,
                                             std::span<const double> shares = {});

/// [experts] nodes: the same with one replica of each expert.
std::vector<int> balanced_assignment(std::span<const std::int64_t> loads, int groups,
                                     std::span<const int> slots,
                                     std::span<const double> shares = {});

}  // namespace cartesian
