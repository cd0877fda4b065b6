#include "planner/partition.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "base/random.h"
#include "planner/synthetic_trace.h"

namespace cartesian::test {
namespace {

/// From its definition.
double cost_of(const LayerTrace& layer, const Partition::Costs& costs,
               const std::vector<int>& node_of) {
  double cost = 0;
  for (std::size_t expert = 0; expert < node_of.size() && !costs.was.empty(); ++expert) {
    const bool had =
        !costs.had.empty() && std::ranges::count(costs.had[expert], node_of[expert]) > 0;
    cost += node_of[expert] != costs.was[expert] && !had ? costs.away : 0;
  }
  for (std::int64_t token = 0; token < layer.tokens; ++token) {
    std::vector<std::set<int>> nodes;
    for (std::size_t group = 0; group < layer.groups.size(); ++group) {
      auto& visited = nodes.emplace_back();
      for (const std::int16_t id : layer.groups[group].of(token)) {
        if (id >= 0) {
          visited.insert(node_of[group * static_cast<std::size_t>(layer.experts) +
                                 static_cast<std::size_t>(id)]);
        }
      }
      for (const int node : visited) {
        if (layer.home.empty() || costs.node_of_rank.empty()) {
          cost += costs.visit[static_cast<std::size_t>(node)];
        } else {
          const auto rank = static_cast<std::size_t>(layer.home[static_cast<std::size_t>(token)]);
          cost += costs.node_of_rank[rank] == node ? 2 - costs.at_home : 2;
        }
      }
    }
    if (nodes.size() == 2 &&
        std::ranges::any_of(nodes[0], [&](int node) { return nodes[1].contains(node); })) {
      cost -= costs.meet;
    }
  }
  return cost;
}

/// On four nodes, alike or not, with experts that would rather stay, or not.
std::vector<Partition::Costs> costs_of(const LayerTrace& layer) {
  std::vector<int> was;
  std::vector<std::vector<int>> had;
  for (int expert = 0; expert < layer.experts * static_cast<int>(layer.groups.size()); ++expert) {
    was.push_back(expert * 3 % 4);
    had.push_back({expert * 3 % 4, expert * 5 % 3});
  }
  const std::vector<double> uneven{1.5, 1.75, 1.25, 1.5};
  const std::vector<double> alike(4, 1.75);
  return {{.visit = uneven},
          {.visit = uneven, .meet = 1},
          {.visit = alike, .meet = 1},
          {.visit = uneven, .meet = 1, .away = 12.5, .was = was},
          {.visit = alike, .meet = 1, .away = 0.25, .was = was},
          {.visit = alike, .meet = 1, .away = 0.25, .was = was, .had = had},
          {.visit = alike, .meet = 1, .at_home = 1, .node_of_rank = {0, 1, 1, 2, 3}},
          {.visit = uneven, .at_home = 2, .node_of_rank = {3, 2, 0, 1, 0}}};
}

class PartitionTest : public testing::TestWithParam<SyntheticTraceSpec> {};

TEST_P(PartitionTest, GainsAreWhatMovesDo) {
  RoutingTrace trace = make_synthetic_trace(GetParam(), 1);
  for (std::int64_t token = 0; token < trace.tokens; ++token) {
    trace.home.push_back(static_cast<int>(token * 7 % 5));
  }
  const LayerTrace layer = layers_of(trace)[0];
  for (const Partition::Costs& costs : costs_of(layer)) {
    Partition partition(layer, costs);
    std::vector<int> node_of(static_cast<std::size_t>(partition.experts()));
    EXPECT_NEAR(partition.cost(), cost_of(layer, costs, node_of), 1e-6);
    const std::uint64_t key = random_key(2, "moves");
    for (std::uint64_t step = 0; step < 120; ++step) {
      const auto expert = static_cast<int>(random_bits(key, 2 * step) % node_of.size());
      const auto node = static_cast<int>(random_bits(key, 2 * step + 1) % 4);
      const double before = partition.cost();
      const double gain = node == partition.node_of(expert) ? 0 : partition.gain(expert, node);
      partition.move(expert, node);
      node_of[static_cast<std::size_t>(expert)] = node;
      ASSERT_NEAR(partition.cost(), cost_of(layer, costs, node_of), 1e-6) << "step " << step;
      ASSERT_NEAR(before - partition.cost(), gain, 1e-6) << "step " << step;
      ASSERT_NEAR(assignment_cost(layer, costs, node_of), partition.cost(), 1e-6);
    }
    // Nothing depends on the way there.
    Partition fresh(layer, costs);
    fresh.assign(node_of);
    EXPECT_NEAR(fresh.cost(), partition.cost(), 1e-6);
    for (int expert = 0; expert < partition.experts(); ++expert) {
      for (int node = 0; node < 4; ++node) {
        if (node != partition.node_of(expert)) {
          EXPECT_NEAR(fresh.gain(expert, node), partition.gain(expert, node), 1e-6);
        }
      }
    }
    for (int node = 0; node < 4; ++node) {
      EXPECT_EQ(fresh.node_load(node).of_group, partition.node_load(node).of_group);
      EXPECT_EQ(fresh.node_size(node), partition.node_size(node));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Traces, PartitionTest,
    testing::Values(SyntheticTraceSpec{}, SyntheticTraceSpec{.groups = 1},
                    SyntheticTraceSpec{.choices = 1},
                    SyntheticTraceSpec{.choices = 5, .ragged = true},
                    SyntheticTraceSpec{.experts = 12, .choices = 3, .cluster = 3},
                    SyntheticTraceSpec{.tokens = 0}, SyntheticTraceSpec{.tokens = 1}));

}  // namespace
}  // namespace cartesian::test
