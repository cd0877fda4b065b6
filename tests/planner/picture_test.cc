#include "planner/picture.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "planner/layer_trace.h"
#include "planner/synthetic_trace.h"

namespace cartesian::test {
namespace {

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (std::size_t at = 0; (at = text.find(part, at)) != std::string::npos; at += part.size()) {
    ++found;
  }
  return found;
}

std::string picture_of(const SyntheticTraceSpec& spec, const std::string& title) {
  const RoutingTrace trace = make_synthetic_trace(spec, 1);
  const Topology topology = Topology::from_node_sizes(std::vector<int>{2, 2}, 4);
  return make_picture(trace, Placement::linear(placement_shape(trace, 4), 4), topology, title);
}

TEST(Picture, ShowsEveryLayerAndNode) {
  const std::string page = picture_of({.layers = 3}, "a plan");
  EXPECT_EQ(count(page, "<section>"), 3U);
  EXPECT_EQ(count(page, "<svg"), 3U);
  EXPECT_EQ(count(page, "node 1</th>"), 3U);
  EXPECT_EQ(count(page, "<td>"), 3U * 2 * 2);
  EXPECT_EQ(count(page, "http"), 0U);
}

TEST(Picture, TitlesAreText) {
  const std::string page = picture_of({}, "<script>alert(1)</script>");
  EXPECT_EQ(count(page, "<script"), 0U);
  EXPECT_EQ(count(page, "&lt;script&gt;"), 2U);
}

TEST(Picture, StaysSmall) {
  const std::string page =
      picture_of({.layers = 30, .experts = 256, .tokens = 20}, "a large model");
  EXPECT_LT(page.size(), 4U << 20);
  EXPECT_LE(count(page, "<section>"), 12U);
}

std::string picture_on_nodes(const SyntheticTraceSpec& spec, int nodes, bool everywhere) {
  const RoutingTrace trace = make_synthetic_trace(spec, 1);
  const Topology topology = Topology::from_node_sizes(std::vector<int>(nodes, 1), nodes);
  const PlacementShape shape = placement_shape(trace, nodes);
  return make_picture(
      trace, everywhere ? Placement::local(shape, topology) : Placement::linear(shape, nodes),
      topology, "many nodes");
}

TEST(Picture, StaysSmallOnManyNodes) {
  const std::string all =
      picture_on_nodes({.layers = 12, .experts = 256, .tokens = 5000}, 512, false);
  EXPECT_LT(all.size(), 4000000U);
  EXPECT_EQ(count(all, "<section>"), 12U);
  EXPECT_EQ(count(all, "node 511</th>"), 12U);
}

TEST(Picture, LeavesOutWhatHasNoRoom) {
  const std::string replicas =
      picture_on_nodes({.layers = 3, .experts = 1000, .tokens = 50}, 700, true);
  EXPECT_LT(replicas.size(), 4000000U);
  EXPECT_GE(count(replicas, "<section>"), 1U);
  EXPECT_GE(count(replicas, "…"), 1U);
  const std::string nodes =
      picture_on_nodes({.layers = 1, .experts = 3000, .tokens = 50}, 5000, false);
  EXPECT_LT(nodes.size(), 4000000U);
  EXPECT_EQ(count(nodes, "node 1023</th>"), 1U);
  EXPECT_EQ(count(nodes, "and 3976 nodes more</th>"), 1U);
}

/// Every third of nine, if so many have room.
TEST(Picture, ShowsLayersThatAreEvenlyApart) {
  const std::string page = picture_on_nodes({.layers = 9, .experts = 500, .tokens = 50}, 600, true);
  EXPECT_LT(page.size(), 4000000U);
  for (const int block : {0, 3, 6}) {
    EXPECT_EQ(count(page, "<h2>Block " + std::to_string(block) + "</h2>"), 1U);
  }
  EXPECT_EQ(count(page, "<section>"), 3U);
}

TEST(Picture, OneSubLayerHasNoMatrix) {
  const std::string page = picture_of({.groups = 1}, "conventional");
  EXPECT_EQ(count(page, "<svg"), 0U);
  EXPECT_EQ(count(page, "<section>"), 1U);
}

}  // namespace
}  // namespace cartesian::test
