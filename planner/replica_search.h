#pragma once
// Which experts get replicas in slots that are left, and where.

#include <cstdint>

#include "planner/replica_costs.h"

namespace cartesian {

struct ReplicaOptions {
  /// Copies, of all the trace's tokens, that a replica must save to be worth its gradients.
  double least_saving = 0;
  std::int64_t work =
      0;  ///< ReplicaCosts::work() to spend; the first look at everything may be more
  std::uint64_t seed = 1;
};

/// Adds the replicas that save most, exchanges what slots hold, and drops again what does not save
/// enough. Tokens choose several experts, and one of them at home saves nothing while the others
/// are elsewhere: so at first each choice that needs no travel counts for something. `partition`
/// knows which experts are chosen together. Deterministic.
void place_replicas(ReplicaCosts& costs, const Partition& partition, const ReplicaOptions& options);

}  // namespace cartesian
