#include "base/topology.h"

#include <gtest/gtest.h>

#include <array>

#include "base/error.h"
#include "tests/support/expect_error.h"

namespace cartesian {
namespace {

std::vector<int> members(const Topology& topology, int node) {
  const auto ranks = topology.ranks_of_node(node);
  return {ranks.begin(), ranks.end()};
}

TEST(Topology, SingleNode) {
  const Topology topology = Topology::single_node(3);
  EXPECT_EQ(topology.ranks(), 3);
  EXPECT_EQ(topology.nodes(), 1);
  EXPECT_EQ(topology.node(2), 0);
  EXPECT_EQ(topology.local_index(2), 2);
}

TEST(Topology, NodeSizes) {
  const Topology topology = Topology::from_node_sizes(std::array{1, 3}, 4);
  EXPECT_EQ(topology.nodes(), 2);
  EXPECT_EQ(members(topology, 0), (std::vector{0}));
  EXPECT_EQ(members(topology, 1), (std::vector{1, 2, 3}));
  EXPECT_EQ(topology.local_index(3), 2);
}

TEST(Topology, RefusesWrongNodeSizes) {
  expect_error<ConfigError>(
      [] {
        (void)Topology::from_node_sizes(std::array{1, 3}, 5);
      },
      {"parallel.node_sizes", "[1, 3]", "4", "5"});
  expect_error<ConfigError>(
      [] {
        (void)Topology::from_node_sizes(std::array{4, 0}, 4);
      },
      {"parallel.node_sizes", "[4, 0]"});
  expect_error<ConfigError>(
      [] {
        (void)Topology::from_node_sizes(std::array{-1, 5}, 4);
      },
      {"parallel.node_sizes"});
  constexpr int kBig = 2147483647;  // the sum must not wrap around
  expect_error<ConfigError>(
      [] {
        (void)Topology::from_node_sizes(std::array{kBig, kBig, 6}, 4);
      },
      {"parallel.node_sizes"});
  expect_error<ConfigError>([] { (void)Topology::from_node_sizes({}, 1); },
                            {"parallel.node_sizes"});
}

TEST(Topology, HostsNeedNotBeContiguous) {
  const std::vector<std::string> hosts = {"x", "y", "x", "z", "y"};
  const Topology topology = Topology::from_host_names(hosts);
  EXPECT_EQ(topology.nodes(), 3);
  EXPECT_EQ(members(topology, 0), (std::vector{0, 2}));
  EXPECT_EQ(members(topology, 1), (std::vector{1, 4}));
  EXPECT_EQ(topology.node(3), 2);
  EXPECT_EQ(topology.local_index(4), 1);
}

TEST(Topology, RailWrapsAroundSmallerNodes) {
  const Topology topology = Topology::from_node_sizes(std::array{3, 2}, 5);
  EXPECT_EQ(topology.rail(1, 0), 3);
  EXPECT_EQ(topology.rail(1, 1), 4);
  EXPECT_EQ(topology.rail(1, 2), 3);
  EXPECT_EQ(topology.rail(0, 4), 1);
  EXPECT_EQ(topology.rail(0, 2), 2);
}

TEST(TopologyDeathTest, NodesAreNumberedInOrder) {
  EXPECT_DEATH(Topology({1, 0}), "order");
  EXPECT_DEATH((void)Topology::single_node(2).node(2), "rank");
}

}  // namespace
}  // namespace cartesian
