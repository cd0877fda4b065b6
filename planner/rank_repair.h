#pragma once
// Swaps between nodes so that every node's experts can be packed onto its ranks without
// overloading one.

#include <span>
#include <vector>

#include "planner/partition_search.h"

namespace cartesian {

struct RankLimits {
  std::vector<int> ranks;          ///< [nodes]
  int slots = 1;                   ///< of a rank
  double load = 0;                 ///< of a rank, in choices of tokens, for its share
  std::vector<double> loads = {};  ///< [nodes] the same where ranks' shares differ; empty: `load`
  /// [nodes][ranks of it] of the load, over the mean rank's; empty: 1 each.
  std::vector<std::vector<double>> shares = {};

  double load_on(std::size_t node) const { return loads.empty() ? load : loads[node]; }
  std::span<const double> shares_on(std::size_t node) const;
  /// Of all its ranks together.
  double share_of(std::size_t node) const;
};

/// The load, for its share, of the most loaded rank of each node, packed as well as pack_ranks()
/// can: [nodes].
std::vector<double> most_loaded_ranks(const CoActivation& all, std::span<const int> nodes,
                                      const RankLimits& limits);

/// While some rank is over its load, the cheapest of the swaps that lower it, if there is one; no
/// node's load rises above its limit. `tries`: packings to spend. Deterministic.
void repair_ranks(Partition& partition, const NodeLimits& nodes, const RankLimits& ranks,
                  int tries);

}  // namespace cartesian
