#pragma once
// What a placement would cost, over all layers of a trace: the rows of `cartesian plan`'s table.

#include <array>
#include <optional>
#include <string>

#include "planner/plan.h"
#include "planner/step_time.h"

namespace cartesian {

struct PlacementCosts {
  /// Copies per token of all layers together, forward.
  double flat = 0;
  double home = 0;
  double oracle = 0;                  ///< pivots chosen by B's true choices
  std::optional<double> speculative;  ///< by the trace's, if all its layers have them
  double table = 0;                   ///< by pivot scores of this placement
  double gate = 0;
  /// In the flow that is planned for, pivots chosen by best_rule():
  double inter_bytes = 0;  ///< per token, all layers, forward
  double intra_bytes = 0;
  /// The most loaded network card over the mean, of each phase's worst layer.
  std::array<double, kTravelPhases> card_imbalance{1, 1, 1, 1};
  double rank_imbalance = 1;  ///< of the worst layer
  StepTime time;              ///< of all MoE layers
  double gradient_bytes = 0;  ///< of replicas, that travel between ranks in a step
  double expert_bytes = 0;    ///< of the fullest rank: experts with gradients and two moments

  double pivot() const { return speculative.value_or(table); }
  double of(Flow flow) const;
};

/// Homes are as in TrafficOptions.
PlacementCosts evaluate_placement(const RoutingTrace& trace, const Cluster& cluster,
                                  const Placement& placement, const PlanOptions& options);

/// The least that the most loaded rank's choices can be over the mean, in the worst layer: 1, or
/// what the heaviest experts need with replicas in all slots (planner/bounds.h).
double least_rank_imbalance(const RoutingTrace& trace, const Cluster& cluster,
                            const PlanOptions& options);

/// A lower bound of `copies` in `options.flow` for every placement with one replica of each expert,
/// per token, all layers. None if the trace says where tokens are at home: it is of uniform homes,
/// and placements can make use of others.
std::optional<double> least_copies(const RoutingTrace& trace, const Cluster& cluster,
                                   const PlanOptions& options);

}  // namespace cartesian
