#include "planner/replan.h"

#include <utility>

#include "base/check.h"

namespace cartesian {

namespace {

bool within_slots(const Placement& placement, int slots) {
  const PlacementShape& shape = placement.shape();
  for (int layer = 0; layer < shape.layers; ++layer) {
    for (int rank = 0; rank < shape.ranks; ++rank) {
      std::size_t held = 0;
      for (int group = 0; group < shape.groups; ++group) {
        held += placement.experts_on(layer, group, rank).size();
      }
      if (held > static_cast<std::size_t>(slots)) {
        return false;
      }
    }
  }
  return true;
}

}  // namespace

Replan replan_placement(const RoutingTrace& trace, const Cluster& cluster,
                        const PlanOptions& options) {
  check(options.running != nullptr, "re-planning begins at a running placement");
  Placement planned = plan_placement(trace, cluster, options);
  // With the scores of this trace, so that placements are compared and not pivots.
  Placement running = options.running->without_pivot_scores();
  if (planned.score_nodes() > 0) {
    running = running.with_pivot_scores(planned.score_nodes(),
                                        pivot_scores(trace, running, cluster.topology));
  }
  const PlacementCosts before = evaluate_placement(trace, cluster, running, options);
  const PlacementCosts after = evaluate_placement(trace, cluster, planned, options);
  const Migration migration = plan_migration(running, planned, cluster, moving_bytes(trace));
  const double steps = migration.steps_to_pay_back(before.time.total() - after.time.total());
  const bool must = !within_slots(running, slots_per_rank(planned.shape(), options));
  const bool pays = after.time.total() < before.time.total() && steps <= options.horizon_steps;
  const bool differs = planned.without_pivot_scores() != running.without_pivot_scores();
  const bool moves = differs && (must || pays);
  return {.placement = moves ? std::move(planned) : std::move(running),
          .before = before,
          .planned = after,
          .migration = migration,
          .steps = steps,
          .must = must,
          .moves = moves};
}

}  // namespace cartesian
