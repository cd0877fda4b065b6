#include "planner/label_alignment.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "base/index.h"
#include "planner/dice.h"

namespace cartesian::test {
namespace {

std::vector<int> random_nodes(Dice& dice, int experts, int nodes) {
  std::vector<int> result;
  for (int expert = 0; expert < experts; ++expert) {
    result.push_back(dice.below(nodes));
  }
  return result;
}

int stay(const std::vector<int>& nodes, const std::vector<int>& was) {
  int count = 0;
  for (std::size_t expert = 0; expert < nodes.size(); ++expert) {
    count += nodes[expert] == was[expert] ? 1 : 0;
  }
  return count;
}

/// The most experts that stay under any of the names that nodes of equal sizes can exchange.
int most_that_stay(const std::vector<int>& nodes, const std::vector<int>& was,
                   const std::vector<int>& sizes) {
  std::vector<int> label(sizes.size());
  std::iota(label.begin(), label.end(), 0);
  int most = 0;
  do {
    bool alike = true;
    for (std::size_t node = 0; node < label.size(); ++node) {
      alike = alike && sizes[node] == sizes[as_index(label[node])];
    }
    if (alike) {
      std::vector<int> named;
      for (const int node : nodes) {
        named.push_back(label[as_index(node)]);
      }
      most = std::max(most, stay(named, was));
    }
  } while (std::ranges::next_permutation(label).found);
  return most;
}

/// Nodes are renamed one to one, and only to nodes of their size.
void expect_renamed(const std::vector<int>& nodes, const std::vector<int>& aligned,
                    const std::vector<int>& sizes) {
  ASSERT_EQ(nodes.size(), aligned.size());
  for (std::size_t a = 0; a < nodes.size(); ++a) {
    EXPECT_EQ(sizes[as_index(nodes[a])], sizes[as_index(aligned[a])]);
    for (std::size_t b = 0; b < a; ++b) {
      EXPECT_EQ(nodes[a] == nodes[b], aligned[a] == aligned[b]);
    }
  }
}

TEST(LabelAlignmentTest, NoNamesLeaveMoreInPlace) {
  for (const std::vector<int>& sizes :
       {std::vector<int>{1}, std::vector<int>{2, 2}, std::vector<int>{1, 2},
        std::vector<int>{4, 4, 4, 4}, std::vector<int>{1, 2, 1, 2, 2}, std::vector<int>{3, 2, 1},
        std::vector<int>(6, 1)}) {
    const auto nodes = static_cast<int>(sizes.size());
    for (std::uint64_t seed = 1; seed <= 10; ++seed) {
      Dice dice(seed);
      for (const int experts : {0, 1, 7, 40}) {
        const std::vector<int> now = random_nodes(dice, experts, nodes);
        const std::vector<int> was = random_nodes(dice, experts, nodes);
        const std::vector<int> aligned = align_labels(now, was, sizes);
        expect_renamed(now, aligned, sizes);
        EXPECT_EQ(stay(aligned, was), most_that_stay(now, was, sizes));
      }
    }
  }
}

TEST(LabelAlignmentTest, WhatIsAlignedStays) {
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    Dice dice(seed);
    const std::vector<int> was = random_nodes(dice, 60, 20);
    EXPECT_EQ(align_labels(was, was, std::vector<int>(20, 8)), was);
  }
}

TEST(LabelAlignmentTest, FindsNamesOfHundredsOfNodes) {
  Dice dice(7);
  std::vector<int> label(200);
  std::iota(label.begin(), label.end(), 0);
  dice.shuffle(label);
  const std::vector<int> was = random_nodes(dice, 2000, 200);
  std::vector<int> now;
  for (const int node : was) {
    now.push_back(label[as_index(node)]);
  }
  EXPECT_EQ(align_labels(now, was, std::vector<int>(200, 1)), was);
}

}  // namespace
}  // namespace cartesian::test
