#pragma once
// A layer's slots on nodes, packed onto the nodes' ranks.

#include <cstddef>
#include <span>
#include <vector>

#include "base/topology.h"
#include "planner/balance.h"
#include "planner/rank_repair.h"

namespace cartesian {

/// Ranks of each expert, ascending: [experts of A, then of B].
using ExpertRanks = std::vector<std::vector<int>>;
/// [nodes] slots that are taken.
using NodeSlots = std::vector<std::vector<Slot>>;

/// Of `slots` each, without a limit of the load. `shares`: load_shares().
RankLimits rank_limits(const Topology& topology, int slots, std::span<const double> shares);
/// All ranks' together: [nodes].
std::vector<int> slots_of_nodes(const RankLimits& ranks);
/// Likewise; empty if all ranks' are alike.
std::vector<double> shares_of_nodes(const RankLimits& ranks);

/// REQUIRES: the slots of every node fit its ranks'. `experts`: how many there are. What stays on a
/// node of `running` stays on its rank while no rank is over its load; or nullptr.
ExpertRanks pack_layer(const NodeSlots& slots, const Topology& topology, const RankLimits& limits,
                       std::size_t experts, const ExpertRanks* running);

}  // namespace cartesian
