#pragma once
// Which experts get replicas in slots that are left, and where.

#include <cstdint>

#include "planner/co_activation.h"
#include "planner/replica_costs.h"

namespace cartesian {

struct ReplicaSearchOptions {
  std::int64_t work = 0;  ///< in units of ReplicaCosts::work(), to spend
  std::uint64_t seed = 1;
};

/// Adds the replicas that save most, exchanges what slots hold, and drops again what does not save
/// what it costs. Tokens choose several experts, and one of them at home saves nothing while the
/// others are elsewhere: so at first each choice that needs no travel counts for something.
/// Deterministic. Returns the work that it took, trying included.
std::int64_t place_replicas(ReplicaCosts& costs, const CoActivation& all,
                            const ReplicaSearchOptions& options);

}  // namespace cartesian
