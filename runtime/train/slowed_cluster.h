#pragma once
// slowed(): the cluster that plans are made for while some of it is slower than the rest.

#include <span>

#include "planner/cluster.h"
#include "scheduler/stragglers.h"

namespace cartesian {

/// The ranks and links that are named, so much slower as they are beyond the others, but no more
/// than eight times: waiting tells that a link is slow and not quite how slow, and what is hardly
/// used at all might never be seen to be fast again. Where `cluster` says that one is slow by
/// itself, the slower of both counts.
Cluster slowed(Cluster cluster, std::span<const Straggler> stragglers);

}  // namespace cartesian
