#pragma once
// How evenly experts and ranks are loaded and how far tokens travel: formulas of docs/metrics.md.
// Pure functions. `loads` are counts, none negative; those that divide by them REQUIRE a positive
// one.

#include <span>
#include <vector>

#include "base/placement.h"

namespace cartesian {

/// Mean over maximum, in (0, 1]; 1: all alike.
double balancedness(std::span<const double> loads);
/// Maximum over mean, at least 1.
double imbalance(std::span<const double> loads);
/// Standard deviation (of the population) over mean.
double coefficient_of_variation(std::span<const double> loads);
/// Entropy of the loads' shares over that of equal ones, in [0, 1]; 1 if there is one load.
double normalized_entropy(std::span<const double> loads);
/// Loads that are zero.
int dead_experts(std::span<const double> loads);

/// The middle value, or the mean of the two in the middle. REQUIRES: there is one.
double median(std::vector<double> values);

/// [ranks]: rows that each rank's experts of `layer` get, an expert's replicas sharing evenly.
/// `loads`: [groups, experts] of that layer.
std::vector<double> rank_loads(const Placement& placement, int layer,
                               std::span<const double> loads);

/// The share of pairs whose experts have replicas on a common node. `pairs`: [experts of A, experts
/// of B] of `layer`. REQUIRES: two groups; a positive count.
double colocation_rate(const Placement& placement, std::span<const int> node_of_rank, int layer,
                       std::span<const double> pairs);

/// Rows between nodes that a flat exchange would send for the choices of tokens whose home is
/// `home`: JobShape::ways for each whose expert has no replica on that rank's node. `loads`:
/// [layers, groups, experts].
double flat_rows(const Placement& placement, std::span<const int> node_of_rank, int home,
                 std::span<const float> loads, int ways);

}  // namespace cartesian
