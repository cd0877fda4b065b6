#pragma once
// Local search on a Partition: swaps and moves that keep every node within its slots and its load.

#include <cstdint>
#include <span>
#include <vector>

#include "planner/node_limits.h"
#include "planner/partition.h"

namespace cartesian {

struct SearchOptions {
  std::uint64_t seed = 1;
  std::int64_t work = 0;  ///< stop once Partition::work() has grown by so much
};

/// Choices beyond the limits, over all nodes.
double overload(const Partition& partition, const NodeLimits& limits);

/// Moves experts off nodes with too much load, choosing what costs little; slots are kept. False if
/// some node remains over its load.
bool repair(Partition& partition, const NodeLimits& limits);

/// Swaps and moves while they lower the cost; then, while there is work left, shakes some experts
/// and tries again, keeping the best. No node's load rises above its limit, or above what it was
/// where that is more. The cost never rises. Deterministic.
void improve(Partition& partition, const NodeLimits& limits, const SearchOptions& options);

}  // namespace cartesian
