// Rows of a few tokens counted by hand, and of a whole evaluation beside what the exchange sent.

#include "runtime/train/pivot_tally.h"

#include <gtest/gtest.h>

#include "comm/collectives.h"
#include "runtime/train/evaluation.h"
#include "tests/support/tiny_training.h"

namespace cartesian::test {
namespace {

double counted(Metrics& metrics, const char* pivot) {
  return metrics.counter(std::string("cartesian_pivot_rows_total{pivot=\"") + pivot + "\"}")
      .value();
}

/// Tokens 0, 1, ... at home on rank 0, each with one expert of A and one of B.
struct Tokens {
  std::vector<std::int32_t> a, b;
  std::vector<std::int32_t> pivots;
};

class PivotTallyTest : public testing::Test {
 protected:
  void route(PivotTally& tally, Tokens tokens) {
    const auto count = static_cast<std::int64_t>(tokens.a.size());
    std::vector<float> gates(tokens.a.size(), 1);
    const Tensor gate(gates.data(), {count, 1});
    const std::array choices{Choices{Tensor(tokens.a.data(), {count, 1}), gate},
                             Choices{Tensor(tokens.b.data(), {count, 1}), gate}};
    std::vector<SourceToken> numbers;
    for (std::int32_t token = 0; token < count; ++token) {
      numbers.push_back({token, 0, 0});
    }
    tally.route(
        {.tokens = numbers, .choices = choices, .speculative = {}, .pivots = tokens.pivots});
  }

  Topology topology_ = Topology::from_node_sizes(std::array{1, 1, 1}, 3);
  Placement placement_ = Placement::linear({.layers = 1, .groups = 2, .experts = 3, .ranks = 3}, 3);
  Metrics metrics_;
};

TEST_F(PivotTallyTest, CountsRowsByHand) {
  PivotTally tally(placement_, topology_, Flow::pivot, metrics_, 1);
  // A and B on node 1, routed at home: there and back twice instead of once.
  route(tally, {.a = {1}, .b = {1}, .pivots = {0}});
  EXPECT_EQ(counted(metrics_, "chosen"), 4);
  EXPECT_EQ(counted(metrics_, "oracle"), 2);
  // A on node 1 and B at home: routed on node 1 it would come back to be dispatched, and be home.
  route(tally, {.a = {1}, .b = {0}, .pivots = {1}});
  EXPECT_EQ(counted(metrics_, "chosen"), 4 + 2);
  EXPECT_EQ(counted(metrics_, "oracle"), 2 + 2);
  // Both at home, and a triangle.
  route(tally, {.a = {0, 1}, .b = {0, 2}, .pivots = {0, 1}});
  EXPECT_EQ(counted(metrics_, "chosen"), 6 + 3);
  EXPECT_EQ(counted(metrics_, "oracle"), 4 + 3);
}

TEST_F(PivotTallyTest, TakesOneTokenInSoMany) {
  PivotTally tally(placement_, topology_, Flow::pivot, metrics_, 2);
  route(tally, {.a = {1, 1, 1}, .b = {1, 1, 1}, .pivots = {1, 1, 1}});
  EXPECT_EQ(counted(metrics_, "chosen"), 4);
}

TEST_F(PivotTallyTest, CountsNothingWithoutPivots) {
  PivotTally tally(placement_, topology_, Flow::home, metrics_, 1);
  route(tally, {.a = {1}, .b = {1}, .pivots = {0}});
  EXPECT_EQ(counted(metrics_, "chosen"), 0);
}

TEST(PivotTally, CountsWhatTheExchangeSends) {
  TrainingSetup setup;
  setup.ranks = 5;
  setup.node_sizes = {2, 1, 2};
  setup.chunks = 2;
  setup.exchange = {.flow = Flow::pivot, .pivot = PivotBy::speculative};
  const SyntheticData data(setup.model.vocab_size, 400, setup.train.sequence_length, 1);
  const Topology topology = Topology::from_node_sizes(std::array{2, 1, 2}, setup.ranks);
  std::array<double, 3> sums{};
  with_ranks(setup, [&](ModelRank& rank) {
    Metrics& metrics = rank.context().op.metrics;
    PivotTally tally(rank.placement(), topology, rank.context().exchange.flow(), metrics, 1);
    rank.context().on_route = [&](const RoutedChunk& chunk) { tally.route(chunk); };
    evaluate(rank, data.windows(), 20);
    std::array<double, 3> mine{
        counted(metrics, "chosen"), counted(metrics, "oracle"),
        metrics.counter("cartesian_exchange_rows_total{scope=\"inter\"}").value()};
    all_reduce_sum(rank.context().op, rank.transport(), Team::world(rank.transport()),
                   std::span<double>(mine));
    if (rank.transport().rank() == 0) {
      sums = mine;
    }
  });
  EXPECT_GT(sums[0], 0);
  EXPECT_EQ(sums[0], sums[2]);
  EXPECT_LE(sums[1], sums[0]);
}

}  // namespace
}  // namespace cartesian::test
