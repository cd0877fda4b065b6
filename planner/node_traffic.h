#pragma once
// count_traffic() for placements with one replica of each expert on few nodes, many times as fast:
// sets of nodes are bits of words. What plans are compared by while they are made.

#include <span>

#include "planner/traffic.h"

namespace cartesian {

inline constexpr int kMostTrafficNodes = 64;

struct SingleReplicas {
  std::span<const int> ranks;          ///< [experts of A, then of B]
  std::span<const float> scores = {};  ///< of pivots, [experts of A][nodes]; empty: none
};

/// The same as count_traffic() counts, for the flows `home` and `pivot`, with pivots by the trace's
/// speculative choices or, for PivotRule::table, by scores. REQUIRES: at most kMostTrafficNodes
/// nodes, and homes that are ranks.
Traffic count_node_traffic(const LayerTrace& layer, const SingleReplicas& placed,
                           const Topology& topology, const TrafficOptions& options);

}  // namespace cartesian
