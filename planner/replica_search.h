#pragma once
// Which experts get replicas in slots that are left, and where.

#include <cstdint>
#include <vector>

#include "planner/balance.h"
#include "planner/co_activation.h"
#include "planner/replica_costs.h"

namespace cartesian {

struct ReplicaSearchOptions {
  std::int64_t work = 0;  ///< ReplicaCosts::work() to spend; the first look at all may be more
  std::uint64_t seed = 1;
};

/// Adds the replicas that save most, exchanges what slots hold, and drops again what does not save
/// what it costs. Tokens choose several experts, and one of them at home saves nothing while the
/// others are elsewhere: so at first each choice that needs no travel counts for something.
/// Deterministic.
void place_replicas(ReplicaCosts& costs, const CoActivation& all,
                    const ReplicaSearchOptions& options);

struct ReplicaPlan {
  Flow flow = Flow::pivot;
  double least_saving = 0;  ///< copies, of all the trace's tokens, that pay for a replica
  ReplicaSearchOptions search = {};
  std::vector<NodeSet> running = {};  ///< [experts] where they are now; empty: nowhere yet
  double away = 0;                    ///< copies that bringing one elsewhere is worth
};

/// [nodes] slots: place_replicas() from `nodes`, where every expert is once, from all experts
/// cloned over groups of nodes, down to single ones, and from where they are now; the best of them.
std::vector<std::vector<Slot>> plan_replicas(const LayerTrace& layer, const Topology& topology,
                                             const NodeLimits& limits, const CoActivation& all,
                                             const std::vector<int>& nodes,
                                             const ReplicaPlan& plan);

}  // namespace cartesian
