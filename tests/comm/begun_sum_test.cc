// Sums in parts, against sums of what the ranks contribute in the order that the contract names.

#include "comm/begun_sum.h"

#include <gtest/gtest.h>

#include <map>

#include "comm/forwarding_transport.h"
#include "tests/comm/contributions.h"
#include "tests/comm/rank_harness.h"

namespace cartesian {
namespace {

using testing_ranks::contribution;
using testing_ranks::RankContext;
using testing_ranks::RankTest;

class BegunSumTest : public RankTest {};
INSTANTIATE_TEST_SUITE_P(Sizes, BegunSumTest, ::testing::ValuesIn(testing_ranks::job_sizes()),
                         testing_ranks::size_name);

/// One node, a node for each rank, nodes of two, one rank and the others, every other rank.
std::vector<Topology> topologies(int ranks) {
  std::vector<Topology> found;
  const auto add = [&](auto node_of) {
    std::vector<int> nodes;
    for (int rank = 0; rank < ranks; ++rank) {
      nodes.push_back(node_of(rank));
    }
    found.emplace_back(std::move(nodes));
  };
  add([](int) { return 0; });
  add([](int rank) { return rank; });
  add([](int rank) { return rank / 2; });
  add([](int rank) { return rank == 0 ? 0 : 1; });
  add([](int rank) { return rank % 2; });
  return found;
}

/// The world, and all but the first rank, the others being without.
std::vector<Team> teams(const Transport& transport) {
  Team world = Team::world(transport);
  if (world.ranks.size() == 1) {
    return {world};
  }
  return {world, {{world.ranks.begin() + 1, world.ranks.end()}}};
}

float expected_sum(const Team& team, const Topology& topology, std::size_t i) {
  std::map<int, float> of_nodes;
  for (const int rank : team.ranks) {
    const float value = contribution<float>(rank, i);
    const auto [entry, first] = of_nodes.emplace(topology.node(rank), value);
    entry->second = first ? value : entry->second + value;
  }
  auto node = of_nodes.begin();
  float sum = node->second;
  while (++node != of_nodes.end()) {
    sum += node->second;
  }
  return sum;
}

std::vector<float> contributions(int rank, std::size_t size) {
  std::vector<float> data(size);
  for (std::size_t i = 0; i < size; ++i) {
    data[i] = contribution<float>(rank, i);
  }
  return data;
}

void expect_sums(std::span<const float> data, SumCells::Range range, const Team& team,
                 const Topology& topology) {
  std::size_t wrong = 0;
  for (std::size_t i = range.begin; i < range.end; ++i) {
    wrong += data[i] == expected_sum(team, topology, i) ? 0 : 1;
  }
  EXPECT_EQ(wrong, 0U) << "of " << data.size() << " elements";
}

void finish(BegunSum& sum, const Context& context) {
  while (!sum.done()) {
    sum.advance(context);
  }
}

TEST_P(BegunSumTest, SumsNodeByNode) {
  run([](Transport& transport) {
    RankContext rank;
    BufferPool buffers;
    for (const Topology& topology : topologies(transport.size())) {
      for (const Team& team : teams(transport)) {
        if (team.index_of(transport.rank()) < 0) {
          continue;
        }
        std::vector<std::vector<float>> arrays;
        std::vector<std::unique_ptr<BegunSum>> sums;
        for (const std::size_t size : {0, 1, 5, 4097, 100'003}) {
          arrays.push_back(contributions(transport.rank(), size));
          sums.push_back(std::make_unique<BegunSum>(transport, topology, buffers, Shares{team, {}},
                                                    arrays.back(), CommPhase{"sum"}));
        }
        for (int stage = 0; stage < 4; ++stage) {  // several under way at once
          for (const auto& sum : sums) {
            sum->advance(rank.context);
          }
        }
        for (std::size_t i = 0; i < sums.size(); ++i) {
          EXPECT_TRUE(sums[i]->done());
          expect_sums(arrays[i], {0, arrays[i].size()}, team, topology);
        }
      }
    }
  });
}

TEST_P(BegunSumTest, SharesHaveTheSameBits) {
  run([](Transport& transport) {
    RankContext rank;
    BufferPool buffers;
    const auto ranks = static_cast<std::size_t>(transport.size());
    const auto me = static_cast<std::size_t>(transport.rank());
    for (const Topology& topology : topologies(transport.size())) {
      for (const std::size_t size : {0, 1, 7, 5000, 100'003}) {
        Shares shares{Team::world(transport), {}};
        for (std::size_t r = 0; r <= ranks; ++r) {  // uneven, some perhaps empty
          shares.bounds.push_back(r == ranks ? size : size * r * r / ranks / ranks);
        }
        std::vector<float> data = contributions(transport.rank(), size);
        BegunSum sum(transport, topology, buffers, shares, data, CommPhase{"sum"});
        finish(sum, rank.context);
        expect_sums(data, {shares.bounds[me], shares.bounds[me + 1]}, shares.team, topology);
      }
    }
  });
}

/// Counts bytes to other nodes.
class NodeMeter final : public ForwardingTransport {
 public:
  NodeMeter(Transport& transport, const Topology& topology)
      : ForwardingTransport(transport), topology_(topology) {}
  std::unique_ptr<Request> post(MessageGroup group) override {
    for (const SendOp& send : group.sends) {
      bytes += topology_.node(send.peer) == topology_.node(rank()) ? 0 : send.bytes.size();
    }
    return ForwardingTransport::post(std::move(group));
  }

  std::size_t bytes = 0;

 private:
  const Topology& topology_;
};

TEST_P(BegunSumTest, NodesOfTwoSendOnce) {
  run([](Transport& transport) {
    if (transport.size() % 2 != 0) {
      return;
    }
    RankContext rank;
    BufferPool buffers;
    std::vector<int> nodes;
    for (int r = 0; r < transport.size(); ++r) {
      nodes.push_back(r / 2);
    }
    const Topology topology(nodes);
    NodeMeter meter(transport, topology);
    const auto count = static_cast<std::size_t>(topology.nodes());
    std::vector<float> data = contributions(transport.rank(), 2 * 16 * count * 10);
    BegunSum sum(meter, topology, buffers, {Team::world(transport), {}}, data, CommPhase{"sum"});
    finish(sum, rank.context);
    // Of a half (M - 1) / M there and back, and in every part a byte to each rank.
    const std::size_t parts = count > 1 ? 4 : 2;
    const std::size_t presence = parts * (static_cast<std::size_t>(transport.size()) - 2);
    EXPECT_EQ(meter.bytes, data.size() * sizeof(float) / count * (count - 1) + presence);
  });
}

TEST_P(BegunSumTest, SteadyLoadTakesNoMemory) {
  run([](Transport& transport) {
    RankContext rank;
    BufferPool buffers;
    const Topology topology = Topology::single_node(transport.size());
    std::vector<float> data = contributions(transport.rank(), 5000);
    const auto once = [&] {
      BegunSum sum(transport, topology, buffers, {Team::world(transport), {}}, data,
                   CommPhase{"sum"});
      finish(sum, rank.context);
    };
    once();
    const std::int64_t before = buffers.growths();
    once();
    EXPECT_EQ(buffers.growths(), before);
  });
}

}  // namespace
}  // namespace cartesian
