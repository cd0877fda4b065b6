#pragma once
// Re-planning: whether a placement that training runs with should give way to another.

#include "planner/migration.h"
#include "planner/plan_report.h"

namespace cartesian {

struct Replan {
  Placement placement;     ///< the running one, if moving does not pay
  PlacementCosts before;   ///< of the running placement
  PlacementCosts planned;  ///< of what was planned, whether it pays or not
  Migration migration;     ///< likewise
  double steps = 0;        ///< in which that pays back; infinite if it does not save time
  bool must = false;       ///< the running placement has more on a rank than its slots
  bool moves = false;      ///< `placement` is what was planned, and another than the running one

  const PlacementCosts& after() const { return moves ? planned : before; }  ///< of `placement`
};

/// plan_placement() from options.running, which must be set. It moves, if only by dropping
/// replicas, if the predicted time of options.horizon_steps steps, moving included, falls, or if
/// the running placement has more on a rank than its slots. Throws as plan_placement() does.
Replan replan_placement(const RoutingTrace& trace, const Cluster& cluster,
                        const PlanOptions& options);

}  // namespace cartesian
