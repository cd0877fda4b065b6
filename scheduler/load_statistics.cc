#include "scheduler/load_statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"

namespace cartesian {

namespace {

double sum_of(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

double mean_of(std::span<const double> values) {
  const double sum = sum_of(values);
  check(sum > 0, "statistics of loads need one that is positive");
  return sum / static_cast<double>(values.size());
}

int node_of(std::span<const int> node_of_rank, int rank) {
  return node_of_rank[static_cast<std::size_t>(rank)];
}

/// [nodes]: whether an expert has a replica there.
std::vector<bool> nodes_with(std::span<const int> replicas, std::span<const int> node_of_rank) {
  std::vector<bool> nodes(node_of_rank.size());  // there are at most as many as ranks
  for (const int rank : replicas) {
    nodes[static_cast<std::size_t>(node_of(node_of_rank, rank))] = true;
  }
  return nodes;
}

}  // namespace

double balancedness(std::span<const double> loads) {
  return mean_of(loads) / *std::ranges::max_element(loads);
}

double imbalance(std::span<const double> loads) {
  return *std::ranges::max_element(loads) / mean_of(loads);
}

double coefficient_of_variation(std::span<const double> loads) {
  const double mean = mean_of(loads);
  double squares = 0;
  for (const double load : loads) {
    squares += (load - mean) * (load - mean);
  }
  return std::sqrt(squares / static_cast<double>(loads.size())) / mean;
}

double normalized_entropy(std::span<const double> loads) {
  const double sum = mean_of(loads) * static_cast<double>(loads.size());
  if (loads.size() == 1) {
    return 1;
  }
  double entropy = 0;
  for (const double load : loads) {
    const double share = load / sum;
    entropy -= share > 0 ? share * std::log(share) : 0;
  }
  return std::clamp(entropy / std::log(static_cast<double>(loads.size())), 0.0, 1.0);
}

int dead_experts(std::span<const double> loads) {
  return static_cast<int>(std::ranges::count(loads, 0.0));
}

double median(std::vector<double> values) {
  check(!values.empty(), "the median of nothing");
  std::ranges::sort(values);
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

std::vector<double> rank_loads(const Placement& placement, int layer,
                               std::span<const double> loads) {
  const PlacementShape& shape = placement.shape();
  std::vector<double> rows(static_cast<std::size_t>(shape.ranks));
  std::size_t i = 0;
  for (int group = 0; group < shape.groups; ++group) {
    for (int expert = 0; expert < shape.experts; ++expert, ++i) {
      const auto replicas = placement.replicas(layer, group, expert);
      for (const int rank : replicas) {
        rows[static_cast<std::size_t>(rank)] += loads[i] / static_cast<double>(replicas.size());
      }
    }
  }
  return rows;
}

double colocation_rate(const Placement& placement, std::span<const int> node_of_rank, int layer,
                       std::span<const double> pairs) {
  const int experts = placement.shape().experts;
  double together = 0;
  std::size_t i = 0;
  for (int a = 0; a < experts; ++a) {
    const std::vector<bool> nodes = nodes_with(placement.replicas(layer, 0, a), node_of_rank);
    for (int b = 0; b < experts; ++b, ++i) {
      const auto meets = [&](int rank) {
        return nodes[static_cast<std::size_t>(node_of(node_of_rank, rank))];
      };
      together += std::ranges::any_of(placement.replicas(layer, 1, b), meets) ? pairs[i] : 0;
    }
  }
  const double all = sum_of(pairs);
  check(all > 0, "the co-location rate of no pairs");
  return together / all;
}

double flat_rows(const Placement& placement, std::span<const int> node_of_rank, int home,
                 std::span<const float> loads, int ways) {
  const PlacementShape& shape = placement.shape();
  double choices = 0;
  std::size_t i = 0;
  for (int layer = 0; layer < shape.layers; ++layer) {
    for (int group = 0; group < shape.groups; ++group) {
      for (int expert = 0; expert < shape.experts; ++expert, ++i) {
        const auto near = [&](int rank) {
          return node_of(node_of_rank, rank) == node_of(node_of_rank, home);
        };
        const bool stays = std::ranges::any_of(placement.replicas(layer, group, expert), near);
        choices += stays ? 0 : double{loads[i]};
      }
    }
  }
  return ways * choices;
}

}  // namespace cartesian
