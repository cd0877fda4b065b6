#include "runtime/train/expert_load.h"

#include <algorithm>

#include "scheduler/load_statistics.h"

namespace cartesian {

double balancedness(const RouterLoad& load) {
  const bool any = std::ranges::any_of(load.counts, [](double count) { return count > 0; });
  return any ? balancedness(std::span<const double>(load.counts)) : 1;
}

double mean_balancedness(std::span<const RouterLoad> loads) {
  if (loads.empty()) {
    return 1;
  }
  double sum = 0;
  for (const RouterLoad& load : loads) {
    sum += balancedness(load);
  }
  return sum / static_cast<double>(loads.size());
}

std::int64_t dead_experts(std::span<const RouterLoad> loads) {
  std::int64_t dead = 0;
  for (const RouterLoad& load : loads) {
    dead += std::ranges::count(load.counts, 0.0);
  }
  return dead;
}

}  // namespace cartesian
