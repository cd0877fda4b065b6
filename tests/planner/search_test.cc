// Local search against exhaustive search on small cases.

#include <gtest/gtest.h>

#include <bit>
#include <limits>
#include <numeric>

#include "planner/bounds.h"
#include "planner/partition_search.h"
#include "planner/starts.h"
#include "planner/synthetic_trace.h"

namespace cartesian::test {
namespace {

Partition::Costs pivot_costs(int nodes) {
  return {.visit = std::vector<double>(static_cast<std::size_t>(nodes), 2 - 1.0 / nodes),
          .meet = 1};
}

NodeLimits limits_of(const Partition& partition, double cap) {
  const int nodes = partition.nodes();
  double load = 0;
  for (int expert = 0; expert < partition.experts(); ++expert) {
    load += static_cast<double>(partition.load(expert));
  }
  NodeLimits limits;
  limits.slots.assign(static_cast<std::size_t>(nodes), (partition.experts() + nodes - 1) / nodes);
  limits.load.assign(static_cast<std::size_t>(nodes), cap * load / nodes);
  return limits;
}

/// The least cost within the limits, of all assignments, from their definition: the cost as bit
/// operations over nodes.
class Exhaustive {
 public:
  Exhaustive(const LayerTrace& layer, const Partition& partition, const NodeLimits& limits)
      : layer_(layer),
        partition_(partition),
        limits_(limits),
        node_of_(static_cast<std::size_t>(partition.experts())),
        size_(limits.slots.size()),
        load_(limits.slots.size()) {
    place(0, 0);
  }
  double least() const { return least_; }

 private:
  void place(std::size_t expert, int used) {
    if (expert == node_of_.size()) {
      least_ = std::min(least_, cost());
      return;
    }
    // Nodes are alike: the first empty one stands for all empty ones.
    for (int node = 0; node < std::min(used + 1, static_cast<int>(size_.size())); ++node) {
      const auto n = static_cast<std::size_t>(node);
      const auto load = static_cast<double>(partition_.load(static_cast<int>(expert)));
      if (size_[n] == limits_.slots[n] || load_[n] + load > limits_.load[n]) {
        continue;
      }
      ++size_[n];
      load_[n] += load;
      node_of_[expert] = node;
      place(expert + 1, std::max(used, node + 1));
      --size_[n];
      load_[n] -= load;
    }
  }

  double cost() const {
    const Partition::Costs& costs = partition_.costs();
    double cost = 0;
    for (std::int64_t token = 0; token < layer_.tokens; ++token) {
      unsigned masks[2] = {0, 0};
      for (std::size_t group = 0; group < layer_.groups.size(); ++group) {
        for (const std::int16_t id : layer_.groups[group].of(token)) {
          if (id >= 0) {
            masks[group] |= 1U << node_of_[group * static_cast<std::size_t>(layer_.experts) +
                                           static_cast<std::size_t>(id)];
          }
        }
      }
      cost += costs.visit[0] * (std::popcount(masks[0]) + std::popcount(masks[1])) -
              ((masks[0] & masks[1]) != 0 ? costs.meet : 0);
    }
    return cost;
  }

  const LayerTrace& layer_;
  const Partition& partition_;
  const NodeLimits& limits_;
  std::vector<int> node_of_;
  std::vector<int> size_;
  std::vector<double> load_;
  double least_ = std::numeric_limits<double>::infinity();
};

TEST(SearchTest, FindsTheOptimumOfSmallCases) {
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    for (const int nodes : {2, 4}) {
      // 8 + 8 experts on 4 nodes have 2.6 million assignments: few tokens, so that all are looked
      // at.
      const RoutingTrace trace = make_synthetic_trace({.experts = nodes == 2 ? 8 : 6,
                                                       .tokens = nodes == 2 ? 100 : 30,
                                                       .cluster = seed % 2 == 0 ? 2 : 0,
                                                       .skew = 0.3},
                                                      seed);
      const LayerTrace layer = layers_of(trace)[0];
      Partition partition(layer, pivot_costs(nodes));
      const NodeLimits limits = limits_of(partition, 1.3);
      const Exhaustive all(layer, partition, limits);
      partition.assign(balanced_start(partition.all().loads(), limits));
      if (!repair(partition, limits)) {
        continue;
      }
      improve(partition, limits, {.seed = 1, .work = 400000});
      EXPECT_LE(least_cost(partition.all(), partition.costs(), limits.slots[0]),
                all.least() + 1e-6);
      EXPECT_NEAR(partition.cost(), all.least(), 1e-6) << nodes << " nodes, seed " << seed;
    }
  }
}

TEST(SearchTest, FindsPlantedClusters) {
  const RoutingTrace trace =
      make_synthetic_trace({.experts = 32, .choices = 2, .tokens = 2000, .cluster = 8}, 3);
  const LayerTrace layer = layers_of(trace)[0];
  Partition partition(layer, pivot_costs(4));
  const NodeLimits limits = limits_of(partition, 1.2);
  std::vector<int> planted;
  for (int expert = 0; expert < 64; ++expert) {
    planted.push_back(expert % 4);  // as make_synthetic_trace() scrambles them
  }
  partition.assign(planted);
  const double expected = partition.cost();
  partition.assign(balanced_start(partition.all().loads(), limits));
  improve(partition, limits, {.seed = 1, .work = 2000000});
  EXPECT_LE(partition.cost(), expected);
}

TEST(SearchTest, KeepsSlotsAndLoads) {
  const RoutingTrace trace =
      make_synthetic_trace({.experts = 20, .choices = 3, .tokens = 500, .skew = 0.9}, 5);
  const LayerTrace layer = layers_of(trace)[0];
  Partition partition(layer, pivot_costs(5));
  const NodeLimits limits = limits_of(partition, 1.15);
  partition.assign(linear_start(layer, Topology::from_node_sizes(std::vector<int>(5, 1), 5)));
  EXPECT_GT(overload(partition, limits), 0);
  ASSERT_TRUE(repair(partition, limits));
  const double repaired = partition.cost();
  improve(partition, limits, {.seed = 4, .work = 300000});
  EXPECT_LE(partition.cost(), repaired);
  EXPECT_EQ(overload(partition, limits), 0);
  for (int node = 0; node < 5; ++node) {
    EXPECT_LE(partition.node_size(node), limits.slots[static_cast<std::size_t>(node)]);
  }
}

TEST(SearchTest, RepairEndsWhereNoLoadWillDo) {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    const RoutingTrace trace = make_synthetic_trace({.experts = 16, .skew = 0.7}, seed);
    const LayerTrace layer = layers_of(trace)[0];
    Partition partition(layer, pivot_costs(5));
    NodeLimits limits = limits_of(partition, 0.1 + 0.0123 * static_cast<double>(seed));
    for (std::size_t node = 0; node < limits.load.size(); ++node) {  // sums that are rounded
      limits.load[node] /= 1 + static_cast<double>(node) / 7;
      limits.group_load[0].push_back(limits.load[node] / 3);
      limits.group_load[1].push_back(limits.load[node] / 1.7);
    }
    partition.assign(balanced_start(partition.all().loads(), limits));
    const double before = overload(partition, limits);
    EXPECT_EQ(repair(partition, limits), overload(partition, limits) == 0);
    EXPECT_LE(overload(partition, limits), before);
  }
}

TEST(SearchTest, OneNodeAndNoTokens) {
  for (const int nodes : {1, 3}) {
    const RoutingTrace trace = make_synthetic_trace({.tokens = nodes == 1 ? 50 : 0}, 1);
    const LayerTrace layer = layers_of(trace)[0];
    Partition partition(layer, pivot_costs(nodes));
    const NodeLimits limits = limits_of(partition, 1.1);
    partition.assign(cluster_start(partition.all(), partition.costs(), limits));
    improve(partition, limits, {.seed = 1, .work = 10000});
    EXPECT_EQ(partition.nodes(), nodes);
  }
}

}  // namespace
}  // namespace cartesian::test
