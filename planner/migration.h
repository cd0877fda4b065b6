#pragma once
// Migration: what must move when one placement follows another while training runs.

#include <cstdint>

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

/// A replica that is new comes from a rank of its node that has it, or else from the lowest rank
/// that has it. `expert_bytes`: what moves of an expert. REQUIRES: equal shapes.
Migration plan_migration(const Placement& from, const Placement& to, const Cluster& cluster,
                         double expert_bytes);

}  // namespace cartesian
