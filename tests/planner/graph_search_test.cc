#include "planner/graph_search.h"

#include <gtest/gtest.h>

#include <limits>
#include <numeric>

#include "planner/dice.h"
#include "planner/starts.h"
#include "planner/synthetic_trace.h"

namespace cartesian::test {
namespace {

constexpr PairWeights kWeights{.same = 1.75, .cross = 0.3};
constexpr double kAny = std::numeric_limits<double>::infinity();

/// Of the pairs of experts that share a node.
double weight_within(const CoActivation& all, const PairWeights& weights,
                     const std::vector<int>& nodes) {
  double sum = 0;
  for (int a = 0; a < all.experts(); ++a) {
    for (int b = 0; b < a; ++b) {
      if (nodes[as_index(a)] == nodes[as_index(b)]) {
        sum += (all.same_group(a, b) ? weights.same : weights.cross) *
               static_cast<double>(all.together(a, b));
      }
    }
  }
  return sum;
}

struct Node {
  int size = 0;
  Loads load = {};
};

std::vector<Node> nodes_of(const CoActivation& all, const std::vector<int>& nodes,
                           std::size_t count) {
  std::vector<Node> result(count);
  for (int expert = 0; expert < all.experts(); ++expert) {
    Node& node = result[as_index(nodes[as_index(expert)])];
    ++node.size;
    node.load += all.loads(expert);
  }
  return result;
}

std::vector<int> random_start(const NodeLimits& limits, int experts, std::uint64_t seed) {
  std::vector<int> slots;
  for (std::size_t node = 0; node < limits.slots.size(); ++node) {
    slots.insert(slots.end(), as_index(limits.slots[node]), static_cast<int>(node));
  }
  Dice(seed).shuffle(slots);
  slots.resize(as_index(experts));
  return slots;
}

/// Shares of each node of what all choose, over the nodes' slots; `group`: of a group.
NodeLimits limits_of(const CoActivation& all, const std::vector<int>& slots, double cap,
                     double group) {
  Loads total;
  for (int expert = 0; expert < all.experts(); ++expert) {
    total += all.loads(expert);
  }
  NodeLimits limits{.slots = slots, .load = {}};
  for (const int node : slots) {
    const double share = static_cast<double>(node) / std::reduce(slots.begin(), slots.end());
    limits.load.push_back(cap * share * total.both());
    for (std::size_t g = 0; g < 2 && group < kAny; ++g) {
      limits.group_load.at(g).push_back(group * share * total.of_group.at(g));
    }
  }
  return limits;
}

struct Case {
  SyntheticTraceSpec spec;
  std::vector<int> slots;
  double cap = kAny;
  double group = kAny;
};

class GraphSearchTest : public testing::TestWithParam<Case> {};

TEST_P(GraphSearchTest, WeightRisesWithinTheLimits) {
  const Case& given = GetParam();
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    const RoutingTrace trace = make_synthetic_trace(given.spec, seed);
    const CoActivation all(layers_of(trace)[0]);
    const NodeLimits limits = limits_of(all, given.slots, given.cap, given.group);
    for (const bool balanced : {false, true}) {
      const std::vector<int> start = balanced ? balanced_start(all.loads(), limits)
                                              : random_start(limits, all.experts(), seed);
      const double before = weight_within(all, kWeights, start);
      const auto nodes_before = nodes_of(all, start, given.slots.size());
      for (const std::int64_t budget : {0, 1000}) {
        std::int64_t work = budget;
        const std::vector<int> found = improve_pairs(all, kWeights, limits, start, seed, work);
        EXPECT_LT(work, std::max<std::int64_t>(1, budget));
        EXPECT_GE(weight_within(all, kWeights, found), before * (1 - 1e-6));
        const auto nodes = nodes_of(all, found, given.slots.size());
        for (std::size_t node = 0; node < nodes.size(); ++node) {
          const Loads& load = nodes[node].load;
          const Loads& was = nodes_before[node].load;
          EXPECT_LE(nodes[node].size, limits.slots[node]);
          EXPECT_LE(load.both(), std::max(was.both(), limits.load[node]) + 1e-6);
          for (std::size_t g = 0; g < 2 && given.group < kAny; ++g) {
            EXPECT_LE(load.of_group.at(g),
                      std::max(was.of_group.at(g), limits.group_load.at(g)[node]) + 1e-6);
          }
        }
        std::int64_t again = budget;
        EXPECT_EQ(improve_pairs(all, kWeights, limits, start, seed, again), found);
        EXPECT_EQ(again, work);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Cases, GraphSearchTest,
    testing::Values(Case{{}, {4, 4, 4, 4}}, Case{{.skew = 0.6}, {5, 5, 5, 5}, 1.2},
                    Case{{.skew = 0.6}, {4, 4, 4, 4}, 1.2, 1.2},
                    Case{{.choices = 3, .skew = 0.9, .ragged = true}, {6, 6, 6}, 1.3, 1.5},
                    Case{{.groups = 1, .experts = 24, .cluster = 4}, {8, 8, 8}, 1.1, 1.1},
                    Case{{.skew = 0.3}, {2, 5, 12}, 1.2}, Case{{}, {16}, 1.1},
                    Case{{.tokens = 0}, {8, 8}, 1.1, 1.1}, Case{{.tokens = 1}, {8, 9}},
                    Case{{.experts = 1, .choices = 1}, {1, 1}},
                    Case{{.experts = 40}, std::vector<int>(80, 1), 3}),
    [](const testing::TestParamInfo<Case>& given) { return std::to_string(given.index); });

/// Topics are scrambled over the experts: expert e belongs to topic e modulo their number.
TEST(GraphSearchPlanted, ClustersOfHundredsOfExperts) {
  const RoutingTrace trace = make_synthetic_trace(
      {.experts = 256, .choices = 4, .tokens = 8000, .cluster = 16, .strength = 0.9}, 3);
  const CoActivation all(layers_of(trace)[0]);
  const NodeLimits limits = limits_of(all, std::vector<int>(16, 32), 1.2, kAny);
  std::vector<int> planted;
  for (int expert = 0; expert < all.experts(); ++expert) {
    planted.push_back(expert % 16);
  }
  for (std::uint64_t seed = 1; seed <= 2; ++seed) {
    std::int64_t work = 100000;
    const std::vector<int> found =
        improve_pairs(all, kWeights, limits, random_start(limits, all.experts(), seed), seed, work);
    EXPECT_GE(weight_within(all, kWeights, found), 0.999 * weight_within(all, kWeights, planted));
  }
}

TEST(GraphSearchPlanted, OneNodeSpendsNothing) {
  const RoutingTrace trace = make_synthetic_trace({.experts = 64}, 1);
  const CoActivation all(layers_of(trace)[0]);
  const std::vector<int> start(128);
  std::int64_t work = 100000;
  EXPECT_EQ(improve_pairs(all, kWeights, limits_of(all, {128}, kAny, kAny), start, 1, work), start);
  EXPECT_GE(work, 99000);
}

}  // namespace
}  // namespace cartesian::test
