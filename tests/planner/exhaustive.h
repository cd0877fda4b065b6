#pragma once
// The least cost of all assignments of one layer's experts to nodes, by branch and bound, written
// from the cost's definition: nothing is shared with planner/partition*. For up to 32 experts and 8
// nodes.

#include <vector>

#include "base/itinerary.h"
#include "planner/layer_trace.h"

namespace cartesian::test {

/// Nodes to fill. [nodes] each.
struct Room {
  std::vector<int> slots;
  std::vector<double> load;   ///< most choices of tokens
  std::vector<double> visit;  ///< cost of a visit
  double meet = 0;            ///< what a token saves if A and B meet on a node
};

/// Slots of `slots` on each rank, choices up to `cap` times the mean of the rank's share, and the
/// costs of a flow over homes in proportion to ranks: a copy to each of A's nodes and back, B's
/// likewise, from a pivot that saves one copy, and one more if it hosts one of B's.
Room make_room(const LayerTrace& layer, const Topology& topology, Flow flow, int slots, double cap);

/// Of one assignment, [experts of A, then of B], whatever the limits.
double cost_of(const LayerTrace& layer, const Room& room, const std::vector<int>& node_of);

/// The least cost of the assignments within the limits that cost less than `bound`, or `bound` if
/// none does.
double least_cost_below(double bound, const LayerTrace& layer, const Room& room);

}  // namespace cartesian::test
