#pragma once
// The time of a training step's MoE layers, predicted from counted traffic: messages by latency and
// bandwidth of their link, of a phase's network cards the one that takes longest; products of the
// rank that takes longest. Nothing overlaps: what overlap can hide is known to `cartesian
// simulate`.

#include <array>

#include "planner/cluster.h"
#include "planner/traffic.h"

namespace cartesian {

/// Of the model that travels.
struct RowSizes {
  double hidden = 0;
  double expert_width = 0;
  double element_bytes = 4;  ///< of a row's numbers
  double experts = 0;        ///< of a sub-layer: what router B costs the pivot
};
RowSizes row_sizes(const RoutingTrace& trace);

/// Of one row, forward: multiplications and additions.
double expert_flops(const RowSizes& sizes);
double router_flops(const RowSizes& sizes);
/// Backward's products, over forward's.
inline constexpr double kBackwardProducts = 2;

struct StepTime {
  double inter_s = 0;      ///< copies between nodes
  double intra_s = 0;      ///< rows inside nodes
  double compute_s = 0;    ///< experts, and routers at pivots
  double gradients_s = 0;  ///< sums of replicas' gradients
  double total() const { return inter_s + intra_s + compute_s + gradients_s; }
  StepTime& operator+=(const StepTime& other);
};

/// Of one layer but for gradients, forward and backward, for `tokens` tokens that behave as those
/// counted.
StepTime predict_step(const Traffic& traffic, double tokens, const Cluster& cluster,
                      const RowSizes& sizes);

/// The most loaded card, by what leaves or by what arrives, over the mean of a phase: 1 if nothing
/// travels.
std::array<double, kTravelPhases> card_imbalance(const Traffic& traffic);
/// In the phase where that is largest.
double worst_card(const Traffic& traffic);
/// Largest over mean of the ranks' choices, both groups together; 1 if there are none.
double rank_imbalance(const Traffic& traffic);

}  // namespace cartesian
