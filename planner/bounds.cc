#include "planner/bounds.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <vector>

namespace cartesian {

namespace {

/// The sum of the `count` largest.
double sum_of_largest(std::vector<double>& values, std::size_t count) {
  count = std::min(count, values.size());
  std::partial_sort(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(count),
                    values.end(), std::greater<>());
  return std::accumulate(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(count), 0.0);
}

}  // namespace

double least_cost(const CoActivation& all, const Partition::Costs& costs, int slots) {
  const double visit = *std::ranges::min_element(costs.visit);
  double choices = 0;
  double saved = 0;
  for (int expert = 0; expert < all.experts(); ++expert) {
    choices += static_cast<double>(all.load(expert));
    std::vector<double> weights;
    for (int other = 0; other < all.experts(); ++other) {
      if (other != expert) {
        const double most = *std::ranges::max_element(costs.visit);
        weights.push_back((all.same_group(expert, other) ? most : costs.meet) *
                          static_cast<double>(all.together(expert, other)));
      }
    }
    saved += sum_of_largest(weights, static_cast<std::size_t>(slots - 1)) / 2;
  }
  const double by_pairs = visit * choices - saved;
  const double by_tokens = visit * static_cast<double>(all.choosing()) -
                           costs.meet * static_cast<double>(all.choosing_both());
  return std::max(by_pairs, by_tokens);
}

}  // namespace cartesian
