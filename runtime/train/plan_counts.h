#pragma once
// PlanCounts: how plans of placements went since this process began.

#include <cstdint>

namespace cartesian {

struct PlanCounts {
  std::int64_t version = 0;  ///< of the placement in force; 0: the one that the process began with
  std::int64_t adopted = 0;
  std::int64_t rejected = 0;  ///< made, but moving to them does not pay back in time
  std::int64_t failed = 0;
  double migrated_bytes = 0;  ///< by all ranks
};

}  // namespace cartesian
