#include "planner/picture.h"

#include <gtest/gtest.h>

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

TEST(Picture, OneSubLayerHasNoMatrix) {
  const std::string page = picture_of({.groups = 1}, "conventional");
  EXPECT_EQ(count(page, "<svg"), 0U);
  EXPECT_EQ(count(page, "<section>"), 1U);
}

}  // namespace
}  // namespace cartesian::test
