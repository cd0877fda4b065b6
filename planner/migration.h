#pragma once
// Migration: what must move when one placement follows another while training runs.

#include <cstdint>
#include <span>

#include "base/placement.h"
#include "planner/cluster.h"

namespace cartesian {

struct Migration {
  std::int64_t replicas = 0;  ///< that come to ranks which did not have them
  std::int64_t dropped = 0;   ///< that ranks had and have no longer, those of moved experts too
  double inter_bytes = 0;
  double intra_bytes = 0;
  double seconds = 0;  ///< of the busiest card or rank, both directions at once

  /// Steps that must each save `saved_s` until they have saved what moving takes; infinite if they
  /// save nothing.
  double steps_to_pay_back(double saved_s) const;
};

/// Whence a replica comes that is new on `rank`: the lowest rank of its node among `holders`, or
/// else the lowest of all. REQUIRES: holders ascend, and there is one.
int migration_source(std::span<const int> holders, int rank, const Topology& topology);

/// Replicas that are new come from their migration_source(). `expert_bytes`: what moves of an
/// expert. REQUIRES: equal shapes.
Migration plan_migration(const Placement& from, const Placement& to, const Cluster& cluster,
                         double expert_bytes);

}  // namespace cartesian
