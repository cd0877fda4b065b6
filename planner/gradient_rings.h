#pragma once
// Gradients of experts that have replicas: which ranks add them up, and how many bytes.

#include <vector>

#include "base/placement.h"
#include "planner/cluster.h"

namespace cartesian {

/// A ring all-reduce: every rank sends 2 (r - 1) / r of the bytes to the next, in 2 (r - 1) parts.
struct GradientRing {
  std::vector<int> ranks;  ///< ascending, so that neighbours share nodes
  double experts = 0;      ///< with replicas on exactly these ranks, of all layers and groups
};

/// One for every set of ranks, in the order of the sets.
std::vector<GradientRing> gradient_rings(const Placement& placement);

/// What all rings of a step send.
struct GradientTraffic {
  double inter_bytes = 0;
  double intra_bytes = 0;
  double seconds = 0;  ///< of the busiest card or rank
};

/// `expert_bytes`: of one expert's gradients.
GradientTraffic count_gradients(const Placement& placement, const Cluster& cluster,
                                double expert_bytes);

}  // namespace cartesian
