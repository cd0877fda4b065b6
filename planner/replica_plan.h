#pragma once
// Replicas of one layer's experts in the slots that are left: where a search for them begins.

#include <vector>

#include "planner/balance.h"
#include "planner/replica_search.h"

namespace cartesian {

struct ReplicaPlan {
  Flow flow = Flow::pivot;
  double least_saving = 0;  ///< copies, of all the trace's tokens, that pay for a replica
  ReplicaSearchOptions search = {};
  std::vector<NodeSet> running = {};  ///< [experts] where they are now; empty: nowhere yet
  double away = 0;                    ///< copies that bringing one elsewhere is worth
};

struct ReplicatedSlots {
  std::vector<std::vector<Slot>> slots;  ///< [nodes]
  std::int64_t work = 0;                 ///< that it took, in units of ReplicaCosts::work()
};

/// place_replicas() from `nodes`, where every expert is once, from all experts
/// cloned over groups of nodes, down to single ones, and from where they are now; the best of them
/// and of `nodes`, in the whole trace where the work allows for it.
ReplicatedSlots plan_replicas(const LayerTrace& layer, const Topology& topology,
                              const NodeLimits& limits, const CoActivation& all,
                              const std::vector<int>& nodes, const ReplicaPlan& plan);

}  // namespace cartesian
