#pragma once
// Where a search begins: assignments of one layer's experts to nodes. [experts of A, then of B].

#include <span>
#include <vector>

#include "planner/partition_search.h"

namespace cartesian {

/// As Placement::linear() has them: neighbours together.
std::vector<int> linear_start(const LayerTrace& layer, const Topology& topology);

/// The heaviest expert first, each to the node with a free slot that is least loaded for its share:
/// longest processing time first, which is what EPLB does with experts that have one replica.
std::vector<int> balanced_start(std::span<const std::int64_t> loads, const NodeLimits& limits);

/// Node by node: the heaviest expert that is left, then again and again the one that tokens choose
/// most together with what is there already.
std::vector<int> cluster_start(const CoActivation& all, const Partition::Costs& costs,
                               const NodeLimits& limits);

}  // namespace cartesian
