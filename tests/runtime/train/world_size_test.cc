// A training run is the same run on any number of ranks, with any placement, chunks and nodes: the
// losses agree within 1e-5, every token visits the same experts, and one rank agrees with the
// float64 reference. CARTESIAN_FULL=1 runs many seeds.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <numeric>
#include <optional>
#include <tuple>

#include "tests/runtime/train/same_run.h"
#include "tests/runtime/train/world_size_case.h"

namespace cartesian::test {
namespace {

bool full() {
  const char* value = std::getenv("CARTESIAN_FULL");  // NOLINT(concurrency-mt-unsafe)
  return value != nullptr && std::string_view(value) == "1";
}

std::string name_of_case(const testing::TestParamInfo<Case>& info) { return info.param.name; }

class WorldSizeTest : public testing::TestWithParam<Case> {};

/// The run of one rank, compared with the reference; empty if that is not well conditioned. Shared
/// by cases that differ only in how they are spread.
const std::optional<TrainingRecord>& run_of_one_rank(const Case& c, const TrainingSetup& setup,
                                                     const SyntheticData& data) {
  using Key = std::tuple<std::int64_t, std::int64_t, std::int64_t, bool, std::int64_t, std::string,
                         std::int64_t, bool, std::uint64_t, double, double, double>;
  static std::map<Key, std::optional<TrainingRecord>> runs;
  const Key key{c.experts,         c.batch_sequences, c.micro_batches, c.one_expert,
                c.sub_layers,      c.routing,         c.grain_level,   c.documents,
                setup.weight_seed, c.z_loss,          c.balance_bias,  c.jitter};
  const auto [entry, inserted] = runs.try_emplace(key);
  if (inserted) {
    ReferenceObserver reference(setup, data);
    TrainingRecord record = train(setup, data, [&](ModelRank& rank, std::int64_t step) {
      reference.before_step(rank, step);
    });
    if (reference.well_conditioned() && is_steady(record, setup, data)) {
      reference.compare(record);
      entry->second = std::move(record);
    }
  }
  return entry->second;
}

TEST_P(WorldSizeTest, IsTheRunOfOneRank) {
  const Case& c = GetParam();
  // Which seeds are well conditioned depends on the processor, too.
  int runs = 0;
  for (std::uint64_t seed = 1; seed <= 20 && (full() || runs == 0); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    TrainingSetup setup = setup_of(c, seed);
    const SyntheticData data(setup.model.vocab_size, 1000, setup.train.sequence_length, seed,
                             c.documents ? 5 : 0);
    const std::optional<TrainingRecord>& one = run_of_one_rank(c, setup, data);
    if (!one) {
      continue;
    }
    ++runs;
    const TemporaryDirectory directory;
    setup.ranks = c.ranks;
    setup.node_sizes = c.node_sizes;
    setup.expert_ranks = c.expert_ranks;
    setup.chunks = c.chunks;
    setup.recompute = c.recompute;
    setup.shard_optimizer = c.shard_optimizer;
    setup.exchange = c.exchange;
    setup.placement = c.placement;
    if (c.placement == "file") {
      setup.placement = (directory / "placement.json").string();
      std::ofstream(setup.placement)
          << hot_replicas(placement_shape(setup.model, c.ranks)).to_json();
    }
    const TrainingRecord many = train(setup, data);
    EXPECT_EQ(differences(many, *one), std::vector<std::string>());
    if (c.twice || full()) {
      expect_same_bits(train(setup, data), many);
    }
    if (c.one_expert) {
      for (const RouterLoad& load : many.steps.back().result.loads) {
        EXPECT_EQ(load.counts[0], std::accumulate(load.counts.begin(), load.counts.end(), 0.0));
      }
    }
  }
  EXPECT_GE(runs, 1) << "all seeds hang on rounding";
}

// Equal runs could be equally idle.
TEST(TrainingTest, Learns) {
  TrainingSetup setup = setup_of({.name = "learns"}, 1);
  setup.train.steps = 60;
  const SyntheticData data(setup.model.vocab_size, 1000, setup.train.sequence_length, 1);
  const TrainingRecord run = train(setup, data);
  const auto mean_loss = [&](std::size_t begin, std::size_t end) {
    double sum = 0;
    for (std::size_t i = begin; i < end; ++i) {
      sum += run.steps[i].result.loss / static_cast<double>(end - begin);
    }
    return sum;
  };
  EXPECT_LT(mean_loss(50, 60), 0.85 * mean_loss(0, 10));
}

INSTANTIATE_TEST_SUITE_P(
    Configurations, WorldSizeTest,
    testing::Values(
        Case{.name = "two_ranks", .ranks = 2, .twice = true},
        Case{.name = "three_ranks", .ranks = 3}, Case{.name = "four_ranks", .ranks = 4},
        Case{.name = "one_rank_chunks", .chunks = 3},
        Case{.name = "chunks", .ranks = 3, .chunks = 3, .twice = true},
        Case{.name = "micro_batches", .ranks = 2, .micro_batches = 2, .chunks = 3},
        Case{.name = "uneven_experts", .ranks = 3, .experts = 5},
        Case{.name = "fewer_experts_than_ranks", .ranks = 4, .experts = 3},
        Case{.name = "local", .ranks = 4, .node_sizes = {1, 3}, .placement = "local"},
        Case{.name = "two_nodes", .ranks = 3, .node_sizes = {2, 1}},
        Case{.name = "replicas", .ranks = 3, .experts = 5, .placement = "file"},
        Case{.name = "replicas_in_nodes",
             .ranks = 4,
             .node_sizes = {2, 2},
             .placement = "file",
             .chunks = 3,
             .twice = true},
        Case{.name = "expert_groups", .ranks = 4, .expert_ranks = 2},
        Case{.name = "experts_everywhere", .ranks = 2, .expert_ranks = 1},
        Case{.name = "ranks_without_tokens",
             .ranks = 4,
             .batch_sequences = 2,
             .chunks = 3,
             .twice = true},
        Case{.name = "one_sequence", .ranks = 3, .batch_sequences = 2, .micro_batches = 2},
        Case{.name = "one_expert", .ranks = 3, .one_expert = true},
        Case{.name = "one_expert_replicas", .ranks = 4, .placement = "file", .one_expert = true},
        Case{.name = "documents",
             .ranks = 3,
             .batch_sequences = 7,
             .node_sizes = {2, 1},
             .chunks = 2,
             .twice = true,
             .documents = true,
             .recompute = true},
        Case{.name = "conventional", .ranks = 3, .chunks = 3, .sub_layers = 1, .grain_level = 1},
        Case{.name = "fine_grained", .ranks = 3, .chunks = 3, .sub_layers = 1},
        Case{.name = "hash", .ranks = 3, .sub_layers = 1, .routing = "hash", .grain_level = 1},
        Case{.name = "hash_in_both", .ranks = 2, .chunks = 2, .routing = "hash"},
        Case{.name = "top_p", .ranks = 3, .sub_layers = 1, .routing = "top_p", .grain_level = 1},
        Case{.name = "z_loss", .ranks = 3, .micro_batches = 2, .z_loss = 0.1},
        Case{.name = "z_loss_top_p", .ranks = 2, .routing = "top_p", .z_loss = 0.1},
        Case{.name = "balance_bias", .ranks = 3, .micro_batches = 2, .balance_bias = 0.01},
        Case{.name = "jitter", .ranks = 3, .micro_batches = 2, .chunks = 3, .jitter = 0.1},
        Case{.name = "balanced_in_every_way",
             .ranks = 4,
             .node_sizes = {2, 2},
             .placement = "file",
             .chunks = 3,
             .twice = true,
             .z_loss = 0.1,
             .balance_bias = 0.01,
             .jitter = 0.1,
             .recompute = true,
             .shard_optimizer = true},
        Case{.name = "top_p_in_both",
             .ranks = 4,
             .node_sizes = {2, 2},
             .placement = "file",
             .chunks = 3,
             .twice = true,
             .routing = "top_p"}),
    name_of_case);

/// Every flow over nodes, with placements, chunks and systems of all kinds.
std::vector<Case> flow_cases() {
  const std::vector<ExchangeOptions> ways{{Flow::flat, PivotBy::gate},
                                          {Flow::home, PivotBy::gate},
                                          {Flow::pivot, PivotBy::speculative},
                                          {Flow::pivot, PivotBy::table},
                                          {Flow::pivot, PivotBy::gate}};
  const std::vector<std::vector<std::int64_t>> nodes{{1, 1},       {1, 3}, {2, 2},       {1, 1, 1},
                                                     {2, 1, 2, 3}, {4, 4}, {1, 1, 1, 1}, {3}};
  const std::vector<std::string> placements{"linear", "file", "local"};
  const std::vector<Case> systems{
      {.name = "cartesian"},
      {.name = "wide", .experts = 8},
      {.name = "conventional", .sub_layers = 1, .grain_level = 1},
      {.name = "fine_grained", .sub_layers = 1},
      {.name = "hash", .sub_layers = 1, .routing = "hash", .grain_level = 1},
      {.name = "hash_in_both", .routing = "hash"},
      {.name = "top_p", .sub_layers = 1, .routing = "top_p", .grain_level = 1},
      {.name = "top_p_in_both", .routing = "top_p"},
      {.name = "jitter", .micro_batches = 2, .jitter = 0.1},
      {.name = "z_loss", .micro_batches = 2, .z_loss = 0.1},
      {.name = "one_expert", .one_expert = true},
      {.name = "few_tokens", .batch_sequences = 2}};
  std::vector<Case> cases;
  const std::uint64_t key = random_key(1, "flow cases");
  std::uint64_t next = 0;
  const auto below = [&](std::size_t count) { return random_bits(key, next++) % count; };
  for (const ExchangeOptions& way : ways) {
    for (const Case& system : systems) {
      Case c = system;
      c.exchange = way;
      c.node_sizes = nodes[below(nodes.size())];
      c.ranks = static_cast<int>(std::accumulate(c.node_sizes.begin(), c.node_sizes.end(), 0L));
      c.placement = placements[below(placements.size())];
      c.chunks = std::vector{1, 3, 4}[below(3)];
      c.recompute = below(4) == 0;
      c.twice = below(4) == 0;
      c.name = fmt::format("{}_{}_{}", name_of(way.flow), static_cast<int>(way.pivot), c.name);
      cases.push_back(std::move(c));
    }
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Flows, WorldSizeTest, testing::ValuesIn(flow_cases()), name_of_case);

}  // namespace
}  // namespace cartesian::test
