#pragma once
// How evenly the experts are used, in the field's terms (docs/architecture.md): balancedness = mean
// / max load.

#include <cstdint>
#include <span>

#include "runtime/model/router.h"

namespace cartesian {

/// Mean over the experts' loads divided by the largest; 1 is even. 1 without load.
double balancedness(const RouterLoad& load);
/// The mean of balancedness over sub-layers; 1 without any.
double mean_balancedness(std::span<const RouterLoad> loads);
/// Experts of all sub-layers that no token chose.
std::int64_t dead_experts(std::span<const RouterLoad> loads);

}  // namespace cartesian
