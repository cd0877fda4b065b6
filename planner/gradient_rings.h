#pragma once
// Gradients of experts that have replicas: which ranks add them up, and how many bytes.

#include <vector>

#include "base/placement.h"

namespace cartesian {

/// A ring all-reduce: every rank sends 2 (r - 1) / r of the bytes to the next, in 2 (r - 1) parts.
struct GradientRing {
  std::vector<int> ranks;  ///< ascending, so that neighbours share nodes
  double experts = 0;      ///< with replicas on exactly these ranks, of all layers and groups
};

/// One for every set of ranks, in the order of the sets.
std::vector<GradientRing> gradient_rings(const Placement& placement);

}  // namespace cartesian
