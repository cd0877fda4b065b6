#pragma once
// What no placement can beat, so that a plan's distance from it can be told.

#include <cstdint>
#include <span>

#include "planner/partition.h"

namespace cartesian {

/// No assignment of experts to nodes with at most `slots` experts each costs all tokens less. Two
/// bounds, of which the larger: every token with choices in a group visits one node for it, and at
/// most one meeting is saved; and k choices visit at least k less the pairs of them that share a
/// node, while of all pairs that tokens choose, an expert can share its node with slots - 1 others,
/// at best those that it is chosen with most (a relaxation of maximum-weight b-matching).
double least_cost(const CoActivation& all, const Partition::Costs& costs, int slots);

/// No placement of experts with such loads on `slots` slots of `ranks` ranks, a load shared evenly
/// by an expert's replicas, has a most loaded rank with less than this over the mean.
double least_imbalance(std::span<const std::int64_t> loads, int ranks, int slots);

}  // namespace cartesian
