// Running blocks again in backward changes what is kept, not what comes out: the same bits, each
// choice counted and observed once.

#include <gtest/gtest.h>

#include "tests/support/tiny_training.h"

namespace cartesian::test {
namespace {

struct Case {
  std::string name;
  int ranks = 1;
  int chunks = 1;
  std::string routing = "top_k";
  std::int64_t sub_layers = 2;
  DType dtype = DType::f32;
  bool balanced = false;  ///< with z-loss, biases in the choice and jitter
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

TrainingSetup setup_of(const Case& c) {
  TrainingSetup setup;
  setup.model.num_hidden_layers = 3;
  setup.model.routing = c.routing;
  setup.model.sub_layers = c.sub_layers;
  setup.train = tiny_train();
  setup.train.steps = 4;
  setup.train.micro_batch_sequences = 4;
  setup.ranks = c.ranks;
  setup.chunks = c.chunks;
  setup.dtype = c.dtype;
  if (c.balanced) {
    setup.model.router_bias = true;
    setup.train.z_loss = 0.1;
    setup.train.balance_bias = 0.01;
    setup.train.router_jitter = 0.2;
  }
  return setup;
}

std::string name_of_case(const testing::TestParamInfo<Case>& info) { return info.param.name; }

class RecomputeTest : public testing::TestWithParam<Case> {};

TEST_P(RecomputeTest, GivesTheSameBits) {
  TrainingSetup setup = setup_of(GetParam());
  const SyntheticData data(setup.model.vocab_size, 500, setup.train.sequence_length, 1);
  const TrainingRecord kept = train(setup, data);
  setup.recompute = true;
  const TrainingRecord again = train(setup, data);
  ASSERT_EQ(again.steps.size(), kept.steps.size());
  for (std::size_t i = 0; i < kept.steps.size(); ++i) {
    SCOPED_TRACE("step " + std::to_string(i));
    EXPECT_EQ(again.steps[i].result.loss, kept.steps[i].result.loss);
    EXPECT_EQ(again.steps[i].result.balance_loss, kept.steps[i].result.balance_loss);
    EXPECT_EQ(again.steps[i].result.z_loss, kept.steps[i].result.z_loss);
    EXPECT_EQ(again.steps[i].result.gradient_norm, kept.steps[i].result.gradient_norm);
    EXPECT_EQ(again.steps[i].gradients, kept.steps[i].gradients);
    EXPECT_EQ(again.steps[i].experts, kept.steps[i].experts);
    for (std::size_t s = 0; s < kept.steps[i].result.loads.size(); ++s) {
      EXPECT_EQ(again.steps[i].result.loads[s].counts, kept.steps[i].result.loads[s].counts);
      EXPECT_EQ(again.steps[i].result.loads[s].probabilities,
                kept.steps[i].result.loads[s].probabilities);
    }
  }
  EXPECT_EQ(again.weights, kept.weights);
}

INSTANTIATE_TEST_SUITE_P(
    Systems, RecomputeTest,
    testing::Values(Case{.name = "one_rank"}, Case{.name = "chunks", .ranks = 3, .chunks = 2},
                    Case{.name = "balanced", .ranks = 2, .chunks = 3, .balanced = true},
                    Case{.name = "dense", .ranks = 2, .sub_layers = 0},
                    Case{.name = "hash", .ranks = 2, .routing = "hash", .sub_layers = 1},
                    Case{.name = "top_p", .ranks = 2, .chunks = 2, .routing = "top_p"},
                    Case{.name = "bfloat16", .ranks = 2, .dtype = DType::bf16}),
    name_of_case);

/// Bytes a token leaves behind between forward and backward.
double kept_bytes(bool recompute, std::int64_t blocks) {
  constexpr std::int64_t kTokens = 960;
  TrainingSetup setup = setup_of({.name = "memory"});
  setup.recompute = recompute;
  setup.model.num_hidden_layers = blocks;
  std::vector<std::int32_t> ids = random_ids(1, kTokens, setup.model.vocab_size);
  const Batch batch{.ids = Tensor(ids.data(), {kTokens}),
                    .targets = Tensor(ids.data(), {kTokens}),
                    .length = setup.train.sequence_length};
  double kept = 0;
  with_ranks(setup, [&](ModelRank& rank) {
    rank.model().forward(rank.context(), batch, 1);  // the arena finds its size
    rank.model().forward(rank.context(), batch, 1);
    const Arena::Mark end = rank.context().activations.mark();
    EXPECT_EQ(end.block, 0U);
    kept = static_cast<double>(end.offset) / kTokens;
  });
  return kept;
}

TEST(RecomputeMemoryTest, KeepsTheInputAloneOfABlock) {
  const double inputs_of_two = 2.0 * static_cast<double>(tiny_model().hidden_size) * sizeof(float);
  EXPECT_DOUBLE_EQ(kept_bytes(true, 6) - kept_bytes(true, 4), inputs_of_two);
  EXPECT_GT(kept_bytes(false, 6) - kept_bytes(false, 4), 10 * inputs_of_two);
}

}  // namespace
}  // namespace cartesian::test
