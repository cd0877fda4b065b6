#pragma once
// The table of `cartesian plan`: what placements cost, a row each.

#include <string>
#include <utility>
#include <vector>

#include "planner/plan_report.h"

namespace cartesian {

using PlanRow = std::pair<std::string, PlacementCosts>;

void print_plan_table(const std::vector<PlanRow>& rows);

}  // namespace cartesian
