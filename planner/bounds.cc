#include "planner/bounds.h"

#include <algorithm>
#include <cmath>
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
  const double alone =
      costs.visit_alone.empty() ? visit : *std::ranges::min_element(costs.visit_alone);
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
  const auto choices_alone = static_cast<double>(all.choices_alone());
  const double by_pairs = visit * (choices - choices_alone) + alone * choices_alone - saved;
  const auto both = static_cast<double>(all.choosing_both());
  const double by_tokens =
      (2 * visit - costs.meet) * both + alone * (static_cast<double>(all.choosing()) - 2 * both);
  return std::max(by_pairs, by_tokens);
}

double least_imbalance(std::span<const std::int64_t> loads, int ranks, int slots) {
  const auto total = static_cast<double>(std::reduce(loads.begin(), loads.end()));
  if (total == 0) {
    return 1;
  }
  // A rank that serves at most `most` needs load / most replicas of an expert, rounded up.
  const auto fits = [&](double most) {
    double needed = 0;
    for (const std::int64_t load : loads) {
      needed += std::max(1.0, std::ceil(static_cast<double>(load) / most));
    }
    return needed <= slots;
  };
  const double mean = total / ranks;
  double low = mean;
  double high = total;
  if (fits(low)) {
    return 1;
  }
  for (int halving = 0; halving < 60; ++halving) {
    const double middle = (low + high) / 2;
    (fits(middle) ? high : low) = middle;
  }
  return low / mean;
}

}  // namespace cartesian
