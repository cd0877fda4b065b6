#include "planner/replica_search.h"

#include <gtest/gtest.h>

#include <bit>
#include <numeric>

#include "planner/synthetic_trace.h"
#include "planner/traffic.h"

namespace cartesian::test {
namespace {

Topology four_nodes() { return Topology::from_node_sizes(std::vector<int>{1, 1, 1, 1}, 4); }

std::vector<int> spread(int experts) {
  std::vector<int> nodes(static_cast<std::size_t>(experts));
  for (std::size_t expert = 0; expert < nodes.size(); ++expert) {
    nodes[expert] = static_cast<int>(expert * 7 % 4);
  }
  return nodes;
}

/// What the costs and the search start from.
std::vector<NodeSet> spread_sets(const CoActivation& all) {
  std::vector<NodeSet> sets;
  for (const int node : spread(all.experts())) {
    sets.push_back(node_bit(node));
  }
  return sets;
}

NodeLimits limits_of(const LayerTrace& layer, int slots, double cap) {
  const double choices = 4.0 * static_cast<double>(layer.tokens);
  return {.slots = std::vector<int>(4, slots), .load = std::vector<double>(4, cap * choices / 4)};
}

Placement placement_of(const RoutingTrace& trace, const std::vector<NodeSet>& nodes_of) {
  std::vector<std::vector<int>> replicas;
  for (const NodeSet nodes : nodes_of) {
    auto& ranks = replicas.emplace_back();
    for (int node = 0; node < 4; ++node) {
      if ((nodes >> node & 1) != 0) {
        ranks.push_back(node);
      }
    }
  }
  return {placement_shape(trace, 4), replicas};
}

double counted(const RoutingTrace& trace, const std::vector<NodeSet>& nodes_of, Flow flow) {
  return count_traffic(layers_of(trace)[0], 0, placement_of(trace, nodes_of), four_nodes(),
                       {.flow = flow, .rule = PivotRule::oracle})
      .copies();
}

class ReplicaSearchTest : public testing::TestWithParam<Flow> {};

TEST_P(ReplicaSearchTest, CopiesAreThoseThatMessagesNeed) {
  const RoutingTrace trace = make_synthetic_trace({.experts = 8, .tokens = 300, .cluster = 2}, 3);
  const LayerTrace layer = layers_of(trace)[0];
  const Topology topology = four_nodes();
  // Everywhere or in one place: no replica is chosen by a hash, so the copies are exactly those.
  const NodeLimits limits = limits_of(layer, 5, 10);
  const CoActivation all(layer);
  ReplicaCosts search(layer, topology, limits, all.loads(), spread_sets(all),
                      {.routes = {.flow = GetParam(), .sample = 1000}});
  EXPECT_NEAR(search.copies(), counted(trace, search.nodes_of(), GetParam()), 1e-6);
  place_replicas(search, all, {.work = 20000});
  EXPECT_NEAR(search.copies(), counted(trace, search.nodes_of(), GetParam()),
              0.03 * search.copies());
}

TEST_P(ReplicaSearchTest, MoreRoomMeansFewerCopies) {
  const RoutingTrace trace = make_synthetic_trace({.experts = 8, .tokens = 300, .skew = 0.5}, 4);
  const LayerTrace layer = layers_of(trace)[0];
  const Topology topology = four_nodes();
  double before = 0;
  for (const int slots : {4, 5, 8, 16}) {
    const NodeLimits limits = limits_of(layer, slots, 10);
    const CoActivation all(layer);
    ReplicaCosts search(layer, topology, limits, all.loads(), spread_sets(all),
                        {.routes = {.flow = GetParam()}});
    const double alone = search.copies();
    place_replicas(search, all, {.work = 60000});
    EXPECT_LE(search.copies(), alone);
    EXPECT_TRUE(slots == 4 || search.copies() < before)
        << slots << " slots: " << search.copies() << " after " << before;
    before = search.copies();
    std::vector<int> size(4);
    for (const NodeSet nodes : search.nodes_of()) {
      EXPECT_NE(nodes, 0U);
      for (std::size_t node = 0; node < 4; ++node) {
        size[node] += static_cast<int>(nodes >> node & 1);
      }
    }
    for (const int used : size) {
      EXPECT_LE(used, slots);
    }
    // All of the trace's choices are served somewhere.
    const std::vector<double> served = search.served();
    EXPECT_NEAR(std::reduce(served.begin(), served.end()), 4.0 * 300, 1e-6);
  }
  EXPECT_NEAR(before, 0, 1e-9);  // all experts in every node
}

TEST_P(ReplicaSearchTest, ReplicasMustPay) {
  const RoutingTrace trace = make_synthetic_trace({.experts = 8, .tokens = 200}, 5);
  const LayerTrace layer = layers_of(trace)[0];
  const Topology topology = four_nodes();
  const NodeLimits limits = limits_of(layer, 16, 10);
  const CoActivation all(layer);
  ReplicaCosts search(layer, topology, limits, all.loads(), spread_sets(all),
                      {.routes = {.flow = GetParam()}, .replica = 1e9});
  place_replicas(search, all, {.work = 1000});
  for (const NodeSet nodes : search.nodes_of()) {
    EXPECT_TRUE(std::has_single_bit(nodes));
  }
}

TEST_P(ReplicaSearchTest, LoadsStayWithinTheLimits) {
  const RoutingTrace trace = make_synthetic_trace({.experts = 8, .tokens = 400, .skew = 0.9}, 6);
  const LayerTrace layer = layers_of(trace)[0];
  const Topology topology = four_nodes();
  const NodeLimits limits = limits_of(layer, 6, 1.3);
  const CoActivation all(layer);
  ReplicaCosts search(layer, topology, limits, all.loads(), spread_sets(all),
                      {.routes = {.flow = GetParam()}});
  const auto loads = [&] {
    const std::vector<double> served = search.served();
    std::vector<double> load(4);
    for (std::size_t i = 0; i < served.size(); ++i) {
      load[i % 4] += served[i];
    }
    return load;
  };
  const std::vector<double> before = loads();
  place_replicas(search, all, {.work = 60000});
  const std::vector<double> after = loads();
  for (std::size_t node = 0; node < 4; ++node) {
    EXPECT_LE(after[node], std::max(limits.load[node], before[node]) * (1 + 1e-6));
  }
}

INSTANTIATE_TEST_SUITE_P(Flows, ReplicaSearchTest, testing::Values(Flow::home, Flow::pivot));

/// A sample of few tokens says nothing of many experts, which are a load nevertheless.
TEST(ReplicaSearchEdges, ExpertsThatNoSampledTokenChooses) {
  const RoutingTrace trace = make_synthetic_trace({.experts = 32, .tokens = 400}, 7);
  const LayerTrace layer = layers_of(trace)[0];
  const Topology topology = four_nodes();
  const NodeLimits limits = limits_of(layer, 20, 1.3);
  const CoActivation all(layer);
  ReplicaCosts search(layer, topology, limits, all.loads(), spread_sets(all),
                      {.routes = {.sample = 8}});
  const auto node_loads = [&] {
    const std::vector<double> served = search.served();
    std::vector<double> loads(4);
    for (std::size_t i = 0; i < served.size(); ++i) {
      loads[i % 4] += served[i];
    }
    for (std::size_t expert = 0; expert < 64; ++expert) {
      EXPECT_NEAR(served[4 * expert] + served[4 * expert + 1] + served[4 * expert + 2] +
                      served[4 * expert + 3],
                  static_cast<double>(all.loads()[expert]), 1e-6);
    }
    return loads;
  };
  const std::vector<double> before = node_loads();
  place_replicas(search, all, {.work = 20000});
  const std::vector<double> after = node_loads();
  for (std::size_t node = 0; node < 4; ++node) {
    EXPECT_LE(after[node], std::max(limits.load[node], before[node]) + 1e-6);
  }
}

TEST(ReplicaSearchEdges, NoTokensAndOneSubLayer) {
  for (const SyntheticTraceSpec& spec :
       {SyntheticTraceSpec{.tokens = 0}, SyntheticTraceSpec{.groups = 1}}) {
    const RoutingTrace trace = make_synthetic_trace(spec, 1);
    const LayerTrace layer = layers_of(trace)[0];
    const Topology topology = four_nodes();
    const NodeLimits limits = limits_of(layer, 8, 10);
    const CoActivation all(layer);
    ReplicaCosts search(layer, topology, limits, all.loads(), spread_sets(all), {});
    place_replicas(search, all, {.work = 1000});
    EXPECT_GE(search.copies(), 0);
  }
}

}  // namespace
}  // namespace cartesian::test
