#include "base/messages.h"

#include <gtest/gtest.h>

#include <map>
#include <tuple>
#include <vector>

namespace cartesian {
namespace {

using Message = std::tuple<int, int, int>;  // phase, from, to
using Messages = std::map<Message, int>;

// Nodes 0: ranks 0 1, 1: ranks 2 3, 2: ranks 4 5.
Topology three_nodes() { return Topology::from_node_sizes(std::vector<int>{2, 2, 2}, 6); }

Messages messages_of(Flow flow, int home, int pivot, const std::vector<std::int32_t>& a,
                     const std::vector<std::int32_t>& b) {
  Messages messages;
  for_each_message(flow, {.home = home, .pivot = pivot, .a_ranks = a, .b_ranks = b}, three_nodes(),
                   [&](TravelPhase phase, int from, int to) {
                     ++messages[{static_cast<int>(phase), from, to}];
                   });
  return messages;
}

TEST(Messages, FlatSendsARowForEveryChoice) {
  EXPECT_EQ(messages_of(Flow::flat, 1, 1, {2, 2, 1, -1}, {0}),
            (Messages{{{0, 1, 2}, 2}, {{1, 2, 1}, 2}, {{2, 1, 0}, 1}, {{3, 0, 1}, 1}}));
}

TEST(Messages, HomeSendsOneCopyToANodesRailWhichHandsItOn) {
  // Home 1 is the second of its node: rank 3 receives on node 1.
  EXPECT_EQ(messages_of(Flow::home, 1, 1, {2, 2, 3, 0}, {}), (Messages{{{0, 1, 3}, 1},
                                                                       {{0, 3, 2}, 1},
                                                                       {{0, 1, 0}, 1},
                                                                       {{1, 3, 1}, 1},
                                                                       {{1, 2, 3}, 1},
                                                                       {{1, 0, 1}, 1}}));
}

TEST(Messages, SumsMeetAtThePivotAndReturnHome) {
  // A on nodes 1 and 2, B on node 1, whose rail is the pivot: B needs no copy to get there.
  EXPECT_EQ(messages_of(Flow::pivot, 0, 2, {2, 4}, {3}), (Messages{{{0, 0, 2}, 1},
                                                                   {{0, 0, 4}, 1},
                                                                   {{1, 4, 2}, 1},
                                                                   {{2, 2, 3}, 1},
                                                                   {{3, 3, 2}, 1},
                                                                   {{3, 2, 0}, 1}}));
}

TEST(Messages, WithoutChoicesOfBTheTokenReturnsFromThePivot) {
  EXPECT_EQ(messages_of(Flow::pivot, 0, 2, {2}, {-1}), (Messages{{{0, 0, 2}, 1}, {{3, 2, 0}, 1}}));
  EXPECT_EQ(messages_of(Flow::home, 0, 0, {}, {}), Messages());
}

}  // namespace
}  // namespace cartesian
