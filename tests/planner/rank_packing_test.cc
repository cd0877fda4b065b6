// Packing of a node's experts onto its ranks, and swaps between nodes so that they pack better.

#include "planner/rank_packing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <limits>

#include "base/index.h"
#include "planner/dice.h"
#include "planner/rank_repair.h"
#include "planner/starts.h"
#include "planner/synthetic_trace.h"

namespace cartesian::test {
namespace {

using Load = std::array<std::int64_t, 3>;  // of A, of B, of both

std::vector<Slot> random_slots(Dice& dice, int count, int groups, bool replicas) {
  std::vector<Slot> slots;
  for (int i = 0; i < count; ++i) {
    const double u = dice.uniform();
    const bool again = replicas && i > 0 && dice.below(4) == 0;
    slots.push_back(again ? slots.back()
                          : Slot{i, dice.below(groups), static_cast<std::int64_t>(100 * u * u)});
  }
  return slots;
}

/// [ranks]; checks slots.
std::vector<Load> loads_of(const std::vector<Slot>& node, const std::vector<int>& rank_of,
                           const RankPackingOptions& options) {
  std::vector<Load> loads(as_index(options.ranks));
  std::vector<int> size(as_index(options.ranks));
  for (std::size_t i = 0; i < node.size(); ++i) {
    if (rank_of[i] >= 0) {
      EXPECT_LE(++size[as_index(rank_of[i])], options.slots);
      loads[as_index(rank_of[i])].at(as_index(node[i].group)) += node[i].load;
      loads[as_index(rank_of[i])][2] += node[i].load;
    }
  }
  return loads;
}

Load most_of(const std::vector<Load>& loads) {
  Load most{};
  for (const Load& load : loads) {
    for (std::size_t of = 0; of < most.size(); ++of) {
      most.at(of) = std::max(most.at(of), load.at(of));
    }
  }
  return most;
}

std::int64_t sum(const Load& load) { return load[0] + load[1] + load[2]; }

/// The heaviest first, each to the rank with a free slot that is least loaded by its group.
std::int64_t heaviest_first(std::vector<Slot> node, const RankPackingOptions& options) {
  std::ranges::stable_sort(node, std::greater<>(), &Slot::load);
  std::vector<int> rank_of(node.size(), -1);
  std::vector<int> size(as_index(options.ranks));
  for (std::size_t i = 0; i < node.size(); ++i) {
    const std::vector<Load> loads = loads_of(node, rank_of, options);
    const auto key = [&](int rank) {
      const Load& load = loads[as_index(rank)];
      return std::pair(load.at(as_index(node[i].group)), load[2]);
    };
    int best = -1;
    for (int rank = 0; rank < options.ranks; ++rank) {
      if (size[as_index(rank)] < options.slots && (best < 0 || key(rank) < key(best))) {
        best = rank;
      }
    }
    rank_of[i] = best;
    ++size[as_index(best)];
  }
  return sum(most_of(loads_of(node, rank_of, options)));
}

/// The least sum of largest loads, of all packings.
std::int64_t least_sum(const std::vector<Slot>& node, const RankPackingOptions& options,
                       std::vector<int>& rank_of) {
  if (rank_of.size() == node.size()) {
    return sum(most_of(loads_of(node, rank_of, options)));
  }
  std::int64_t least = std::numeric_limits<std::int64_t>::max();
  for (int rank = 0; rank < options.ranks; ++rank) {
    if (std::ranges::count(rank_of, rank) < options.slots) {
      rank_of.push_back(rank);
      least = std::min(least, least_sum(node, options, rank_of));
      rank_of.pop_back();
    }
  }
  return least;
}

TEST(RankPackingTest, NoWorseThanHeaviestFirst) {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    Dice dice(seed);
    const int ranks = 1 + dice.below(8);
    const int slots = 1 + dice.below(6);
    const RankPackingOptions options{.ranks = ranks, .slots = slots, .was = {}};
    const auto node =
        random_slots(dice, dice.below(ranks * slots + 1), 1 + static_cast<int>(seed % 2), false);
    const RankPacking packed = pack_ranks(node, options);
    ASSERT_EQ(packed.rank_of.size(), node.size());
    EXPECT_EQ(std::ranges::count(packed.rank_of, -1), 0);
    const Load most = most_of(loads_of(node, packed.rank_of, options));
    EXPECT_EQ(packed.most_load, most[2]);
    EXPECT_LE(sum(most), heaviest_first(node, options)) << "seed " << seed;
  }
}

TEST(RankPackingTest, NoRankHasAnExpertTwice) {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    Dice dice(seed);
    const int ranks = 1 + dice.below(6);
    const int slots = 1 + dice.below(5);
    const auto node = random_slots(dice, ranks * slots, 2, true);
    const RankPackingOptions options{.ranks = ranks, .slots = slots, .was = {}};
    const RankPacking packed = pack_ranks(node, options);
    const Load most = most_of(loads_of(node, packed.rank_of, options));
    EXPECT_EQ(packed.most_load, most[2]);
    for (std::size_t i = 0; i < node.size(); ++i) {
      bool somewhere = false;
      for (std::size_t j = 0; j < node.size(); ++j) {
        const bool same = node[i].expert == node[j].expert;
        somewhere = somewhere || (same && packed.rank_of[j] >= 0);
        EXPECT_FALSE(same && i != j && packed.rank_of[i] >= 0 &&
                     packed.rank_of[i] == packed.rank_of[j]);
      }
      EXPECT_TRUE(somewhere);
    }
  }
}

/// Swaps of two end where a swap of three would do more, so not all of the optimum is found.
TEST(RankPackingTest, NearTheOptimumOfSmallCases) {
  double packed_sum = 0;
  double least = 0;
  for (std::uint64_t seed = 1; seed <= 25; ++seed) {
    Dice dice(seed);
    const RankPackingOptions options{
        .ranks = 2 + static_cast<int>(seed % 2), .slots = 3, .was = {}};
    const auto node = random_slots(dice, options.ranks == 2 ? 6 : 7, 2, false);
    const RankPacking packed = pack_ranks(node, options);
    const std::int64_t found = sum(most_of(loads_of(node, packed.rank_of, options)));
    std::vector<int> rank_of;
    const std::int64_t best = least_sum(node, options, rank_of);
    EXPECT_GE(found, best);
    EXPECT_LE(static_cast<double>(found), 1.2 * static_cast<double>(best)) << "seed " << seed;
    packed_sum += static_cast<double>(found);
    least += static_cast<double>(best);
  }
  EXPECT_LE(packed_sum, 1.03 * least);
}

TEST(RankPackingTest, EvenLoadsAreEven) {
  std::vector<Slot> node;
  for (int expert = 0; expert < 16; ++expert) {
    node.push_back({expert, expert / 8, 10});
  }
  const RankPackingOptions options{.ranks = 4, .slots = 4, .was = {}};
  const RankPacking packed = pack_ranks(node, options);
  EXPECT_EQ(most_of(loads_of(node, packed.rank_of, options)), (Load{20, 20, 40}));
}

TEST(RankPackingTest, RunningRanksAreKeptWhileTheirLoadWillDo) {
  for (std::uint64_t seed = 1; seed <= 30; ++seed) {
    Dice dice(seed);
    const RankPackingOptions options{.ranks = 4, .slots = 4, .was = {}};
    const auto node = random_slots(dice, 12, 2, false);
    std::vector<int> was;
    for (int i = 0; i < 12; ++i) {
      was.push_back(i % 4);
    }
    dice.shuffle(was);
    const auto most = static_cast<double>(most_of(loads_of(node, was, options))[2]);
    EXPECT_EQ(pack_ranks(node, {.ranks = 4, .slots = 4, .was = was, .enough = most}).rank_of, was);
    // One that is new comes where there is room, and the others stay.
    std::vector<int> but_one = was;
    but_one[5] = -1;
    const auto rank_of =
        pack_ranks(node, {.ranks = 4, .slots = 4, .was = but_one, .enough = 1e9}).rank_of;
    for (std::size_t i = 0; i < was.size(); ++i) {
      EXPECT_TRUE(i == 5 ? rank_of[i] >= 0 : rank_of[i] == was[i]);
    }
    // More than will do is lowered, from where it is.
    const RankPacking lowered = pack_ranks(
        node, {.ranks = 4, .slots = 4, .was = was, .enough = 0.9 * most, .limit = 0.9 * most});
    EXPECT_LE(static_cast<double>(lowered.most_load), most);
  }
}

TEST(RankPackingTest, RunningRanksWithTooManyExperts) {
  const std::vector<Slot> node{{0, 0, 5}, {1, 0, 4}, {2, 0, 3}, {2, 0, 3}};
  const RankPacking packed = pack_ranks(
      node, {.ranks = 2, .slots = 2, .was = std::vector<int>{0, 0, 0, 0}, .enough = 100});
  const std::vector<Load> loads =
      loads_of(node, packed.rank_of, {.ranks = 2, .slots = 2, .was = {}});
  EXPECT_EQ(packed.rank_of[0], 0);
  EXPECT_EQ(packed.most_load, most_of(loads)[2]);
}

class RankRepairTest : public testing::TestWithParam<int> {};

TEST_P(RankRepairTest, LowersTheWorstRankWithinTheNodesLimits) {
  const int slots = GetParam();
  int lowered = 0;
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    const RoutingTrace trace =
        make_synthetic_trace({.experts = 16, .tokens = 300, .skew = 0.7}, seed);
    const LayerTrace layer = layers_of(trace)[0];
    Partition partition(layer, {.visit = std::vector<double>(4, 1.75), .meet = 1});
    const NodeLimits limits{.slots = std::vector<int>(4, 2 * slots),
                            .load = std::vector<double>(4, 1.25 * 1200 / 4)};
    partition.assign(linear_start(layer, Topology::from_node_sizes(std::vector<int>(4, 1), 4)));
    const bool repaired = repair(partition, limits);
    for (const double cap : {1.0, 1.1, 1.3, 100.0}) {
      const RankLimits ranks{
          .ranks = std::vector<int>(4, 2), .slots = slots, .load = cap * 1200 / 8};
      const std::vector<int> before = partition.assignment();
      const auto worst = [&] {
        return std::ranges::max(most_loaded_ranks(partition.all(), partition.assignment(), ranks));
      };
      const std::int64_t worst_before = worst();
      std::vector<Loads> loads;
      for (int node = 0; node < 4; ++node) {
        loads.push_back(partition.node_load(node));
      }
      repair_ranks(partition, limits, ranks, 200);
      EXPECT_LE(worst(), worst_before);
      lowered += worst() < worst_before ? 1 : 0;
      EXPECT_TRUE(static_cast<double>(worst_before) > ranks.load ||
                  partition.assignment() == before);
      for (int node = 0; node < 4; ++node) {
        EXPECT_LE(partition.node_size(node), 2 * slots);
        EXPECT_LE(partition.node_load(node).both(),
                  std::max(limits.load[0], loads[as_index(node)].both()));
        EXPECT_TRUE(!repaired || partition.node_load(node).both() <= limits.load[0]);
      }
    }
  }
  EXPECT_GT(lowered, 0);
}

INSTANTIATE_TEST_SUITE_P(Slots, RankRepairTest, testing::Values(4, 5));

TEST(RankRepairEdges, NothingToDo) {
  const RoutingTrace trace = make_synthetic_trace({.tokens = 50}, 1);
  const LayerTrace layer = layers_of(trace)[0];
  Partition partition(layer, {.visit = {0}});
  const NodeLimits limits{.slots = {16}, .load = {1000}};
  repair_ranks(partition, limits, {.ranks = {4}, .slots = 4, .load = 1}, 100);  // one node
  EXPECT_EQ(partition.assignment(), std::vector<int>(16));
  Partition two(layer, {.visit = {1, 1}});
  std::vector<int> nodes(16);
  std::fill(nodes.begin() + 8, nodes.end(), 1);
  two.assign(nodes);
  repair_ranks(two, {.slots = {8, 8}, .load = {1000, 1000}},
               {.ranks = {2, 2}, .slots = 4, .load = 1}, 0);  // no tries
  EXPECT_EQ(two.assignment(), nodes);
}

}  // namespace
}  // namespace cartesian::test
