#pragma once
// One token's messages in a MoE layer's forward pass, from the description of the flows alone
// (docs/planner.md, the comments of base/itinerary.h): sets of nodes and ranks, no code of base/'s
// itinerary. What a hash decides is left to whoever asks.

#include <functional>
#include <set>
#include <vector>

#include "base/itinerary.h"

namespace cartesian::test {

struct Message {
  int phase = 0;
  int from = 0;
  int to = 0;
};

/// A token's choices in one sub-layer and where they are sent from.
struct Dispatch {
  int group = 0;
  int origin = 0;
  int home = 0;
  std::vector<int> experts;  ///< without negative ones
};

/// [experts] the ranks that the rules allow: more than one where a hash decides between them.
std::vector<std::set<int>> allowed_replicas(const Dispatch& dispatch, const Placement& placement,
                                            const Topology& topology);

/// Which ranks serve: of those that are allowed.
using ChooseReplicas = std::function<std::vector<int>(const Dispatch&)>;

struct SimulatedToken {
  Flow flow = Flow::pivot;
  int home = 0;
  std::vector<int> a;
  std::vector<float> gates;  ///< of A's choices
  std::vector<int> b;
  std::vector<int> evidence;  ///< what B is thought to choose when the pivot is chosen; or nothing
};

struct Journey {
  int pivot = 0;
  std::vector<int> a_ranks;
  std::vector<int> b_ranks;
  std::vector<Message> messages;
};

/// Of the first layer.
Journey simulate(const SimulatedToken& token, const Placement& placement, const Topology& topology,
                 const ChooseReplicas& choose);

}  // namespace cartesian::test
