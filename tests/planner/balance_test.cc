#include "planner/balance.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <numeric>

#include "base/index.h"
#include "planner/dice.h"

namespace cartesian::test {
namespace {

using Nodes = std::vector<std::vector<Slot>>;

struct Case {
  int experts;  ///< of a group
  int groups;
  std::vector<int> slots;
};

/// With some experts that are liked much more than others, and some that nobody chooses.
std::vector<std::int64_t> random_loads(int experts, std::uint64_t seed) {
  Dice dice(seed);
  std::vector<std::int64_t> loads;
  for (int expert = 0; expert < experts; ++expert) {
    const double u = dice.uniform();
    loads.push_back(dice.below(8) == 0 ? 0 : static_cast<std::int64_t>(1000 * u * u * u * u));
  }
  return loads;
}

/// [experts].
std::vector<int> replicas_of(const Nodes& on_node, std::size_t experts) {
  std::vector<int> replicas(experts);
  for (const auto& slots : on_node) {
    for (const Slot& slot : slots) {
      ++replicas[as_index(slot.expert)];
    }
  }
  return replicas;
}

bool holds(const std::vector<Slot>& slots, int expert) {
  return std::ranges::find(slots, expert, &Slot::expert) != slots.end();
}

class BalanceTest : public testing::TestWithParam<Case> {
 protected:
  template <class Check>
  void for_each_seed(int most_replicas, Check check) const {
    const Case& given = GetParam();
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
      SCOPED_TRACE(seed);
      const auto loads = random_loads(given.groups * given.experts, seed);
      check(loads, balance_nodes(loads, given.groups, given.slots, most_replicas));
    }
  }
};

TEST_P(BalanceTest, FillsAllSlotsWithShares) {
  const Case& given = GetParam();
  for_each_seed(1000, [&](const std::vector<std::int64_t>& loads, const Nodes& on_node) {
    const std::vector<int> replicas = replicas_of(on_node, loads.size());
    for (std::size_t node = 0; node < on_node.size(); ++node) {
      EXPECT_EQ(static_cast<int>(on_node[node].size()), given.slots[node]);
      std::vector<int> of_group(2);
      for (const Slot& slot : on_node[node]) {
        ++of_group[as_index(slot.group)];
        EXPECT_EQ(slot.group, slot.expert / given.experts);
        EXPECT_EQ(slot.load, loads[as_index(slot.expert)] / replicas[as_index(slot.expert)]);
      }
      EXPECT_TRUE(given.groups == 1 || std::abs(of_group[0] - of_group[1]) <= 1);
    }
    EXPECT_GE(*std::ranges::min_element(replicas), 1);
  });
}

TEST_P(BalanceTest, ReplicasGoToDifferentNodesWhileThereAreAny) {
  const Case& given = GetParam();
  const auto nodes = static_cast<int>(given.slots.size());
  const auto of_group = [](const std::vector<Slot>& slots, int group) {
    return std::ranges::count(slots, group, &Slot::group);
  };
  for_each_seed(nodes, [&](const std::vector<std::int64_t>& loads, const Nodes& on_node) {
    const Nodes full = balance_nodes(loads, given.groups, given.slots, 1000);
    for (const std::vector<Slot>& slots : on_node) {
      for (const Slot& slot : slots) {
        if (std::ranges::count(slots, slot.expert, &Slot::expert) == 1) {
          continue;
        }
        // Nodes without it had been filled, heaviest first.
        for (std::size_t other = 0; other < on_node.size(); ++other) {
          if (holds(on_node[other], slot.expert)) {
            continue;
          }
          EXPECT_EQ(of_group(on_node[other], slot.group), of_group(full[other], slot.group));
          for (const Slot& before : on_node[other]) {
            EXPECT_TRUE(before.group != slot.group || before.load >= slot.load);
          }
        }
      }
    }
  });
}

/// What EPLB's greedy choice reaches: no number of replicas in these slots has a smaller largest
/// share, for to lower it an expert would have to give up one that has more load without.
TEST_P(BalanceTest, LargestShareIsLeast) {
  const Case& given = GetParam();
  for_each_seed(1000, [&](const std::vector<std::int64_t>& loads, const Nodes& on_node) {
    const std::vector<int> replicas = replicas_of(on_node, loads.size());
    for (std::size_t a = 0; a < loads.size(); ++a) {
      const double share = static_cast<double>(loads[a]) / replicas[a];
      for (std::size_t b = 0; b < loads.size(); ++b) {
        if (a / as_index(given.experts) == b / as_index(given.experts) && replicas[b] > 1) {
          EXPECT_GE(static_cast<double>(loads[b]) / (replicas[b] - 1), share - 1e-9);
        }
      }
    }
  });
}

TEST_P(BalanceTest, AtMostSoManyReplicas) {
  for (const int most : {1, 2, 3}) {
    for_each_seed(most, [&](const std::vector<std::int64_t>& loads, const Nodes& on_node) {
      const std::vector<int> replicas = replicas_of(on_node, loads.size());
      EXPECT_GE(*std::ranges::min_element(replicas), 1);
      EXPECT_LE(*std::ranges::max_element(replicas), most);
      for (std::size_t node = 0; node < on_node.size(); ++node) {
        EXPECT_LE(static_cast<int>(on_node[node].size()), GetParam().slots[node]);
      }
    });
  }
}

TEST_P(BalanceTest, AssignmentIsThatOfOneReplicaEach) {
  const Case& given = GetParam();
  for_each_seed(1, [&](const std::vector<std::int64_t>& loads, const Nodes& on_node) {
    const std::vector<int> nodes = balanced_assignment(loads, given.groups, given.slots);
    for (std::size_t node = 0; node < on_node.size(); ++node) {
      for (const Slot& slot : on_node[node]) {
        EXPECT_EQ(nodes[as_index(slot.expert)], static_cast<int>(node));
        EXPECT_EQ(slot.load, loads[as_index(slot.expert)]);
      }
    }
  });
}

INSTANTIATE_TEST_SUITE_P(
    Cases, BalanceTest,
    testing::Values(Case{8, 2, {4, 4, 4, 4}}, Case{8, 2, {5, 5, 5, 5}}, Case{7, 2, {5, 5, 5}},
                    Case{8, 2, {2, 6, 12}}, Case{6, 1, {1, 2, 3, 4}}, Case{5, 2, {30}},
                    Case{3, 1, {8, 8, 8}}, Case{16, 2, std::vector<int>(70, 1)},
                    Case{4, 2, {0, 8, 3}}),
    [](const testing::TestParamInfo<Case>& given) { return std::to_string(given.index); });

TEST(BalanceEdges, HeaviestExpertIsEverywhere) {
  const std::vector<std::int64_t> loads{900, 30, 20, 10, 5, 0};
  const Nodes on_node = balance_nodes(loads, 1, std::vector<int>{3, 3, 3}, 3);
  for (const std::vector<Slot>& slots : on_node) {
    EXPECT_TRUE(holds(slots, 0));
  }
}

/// Graham's bound of list scheduling, where slots are never short: a node got the last of what it
/// has when no other had less for each slot.
TEST(BalanceEdges, NodesAreFilledEvenly) {
  constexpr int kExperts = 12;
  for (const std::vector<int>& slots :
       {std::vector<int>{24, 24, 24}, std::vector<int>{24, 48, 30, 24}}) {
    const auto all = static_cast<double>(std::reduce(slots.begin(), slots.end()));
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
      const auto loads = random_loads(2 * kExperts, seed);
      const Nodes on_node = balance_nodes(loads, 2, slots, 1);
      for (int group = 0; group < 2; ++group) {
        const auto of_group = std::span(loads).subspan(as_index(group * kExperts), kExperts);
        const auto total =
            static_cast<double>(std::reduce(of_group.begin(), of_group.end(), std::int64_t{0}));
        for (std::size_t node = 0; node < slots.size(); ++node) {
          std::int64_t load = 0;
          std::int64_t last = 0;  // heaviest first
          for (const Slot& slot : on_node[node]) {
            load += slot.group == group ? slot.load : 0;
            last = slot.group == group ? slot.load : last;
          }
          EXPECT_LE(static_cast<double>(load - last), total * slots[node] / all + 1e-6);
        }
      }
    }
  }
}

TEST(BalanceEdges, NoLoads) {
  const Nodes on_node = balance_nodes(std::vector<std::int64_t>(8), 2, std::vector<int>{5, 5}, 2);
  EXPECT_EQ(on_node[0].size() + on_node[1].size(), 10U);
}

TEST(BalanceEdges, MoreExpertsThanSlots) {
  EXPECT_DEATH(balance_nodes(std::vector<std::int64_t>(8), 2, std::vector<int>{3, 4}, 1),
               "slots for all experts");
}

}  // namespace
}  // namespace cartesian::test
