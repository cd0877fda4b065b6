#include "runtime/train/expert_load.h"

#include <algorithm>
#include <numeric>

namespace cartesian {

double balancedness(const RouterLoad& load) {
  const double largest = load.counts.empty() ? 0 : *std::ranges::max_element(load.counts);
  if (largest == 0) {
    return 1;
  }
  const double sum = std::accumulate(load.counts.begin(), load.counts.end(), 0.0);
  return sum / static_cast<double>(load.counts.size()) / largest;
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
