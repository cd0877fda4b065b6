#pragma once
// Search on pairs of experts alone: nodes are chosen so that experts that tokens choose together
// are together, as a graph partition does. It does not know that a token's third expert on a node
// saves no more than its second, but looks at hundreds of experts in milliseconds, whatever the
// number of tokens: where the exact search (partition_search.h) begins.

#include <cstdint>
#include <vector>

#include "planner/partition_search.h"

namespace cartesian {

/// What a pair of experts on one node is worth, for each token that chooses both.
struct PairWeights {
  double same = 1;  ///< of one group
  double cross = 0;
};

/// Swaps and moves of experts, of pairs that belong together, of pairs of pairs, ..., while pairs
/// gain by it; then, while there is work left, shakes and tries again. No node's slots are
/// exceeded, nor does its load rise above its limit, or above what it was where that is more.
/// `work`, in units of Partition::work(), is lowered by what was done. Deterministic.
std::vector<int> improve_pairs(const CoActivation& all, const PairWeights& weights,
                               const NodeLimits& limits, std::vector<int> start, std::uint64_t seed,
                               std::int64_t& work);

}  // namespace cartesian
