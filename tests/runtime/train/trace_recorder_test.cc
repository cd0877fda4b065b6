// A trace holds what every token chose, whatever the ranks; masks leave the most probable out.

#include "runtime/train/trace_recorder.h"

#include <gtest/gtest.h>

#include "runtime/train/evaluation.h"
#include "tests/support/tiny_training.h"

namespace cartesian::test {
namespace {

constexpr std::int64_t kLength = 6;
constexpr std::int64_t kWindows = 7;

class TraceRecorderTest : public testing::Test {
 protected:
  RoutingTrace trace_of(TrainingSetup setup, RouterMask mask = {}) {
    RoutingTrace result;
    with_ranks(setup, [&](ModelRank& rank) {
      rank.context().mask = mask;
      TraceRecorder recorder(rank);
      evaluate(rank, data_.windows(), kWindows);
      RoutingTrace trace = recorder.gather();
      if (rank.transport().rank() == 0) {
        result = std::move(trace);
      } else {
        EXPECT_TRUE(trace.sub_layers.empty());
      }
    });
    return result;
  }

  SyntheticData data_{tiny_model().vocab_size, 100, kLength, 1};
};

TEST_F(TraceRecorderTest, IsTheSameOnAnyNumberOfRanks) {
  for (const char* routing : {"top_k", "top_p", "hash"}) {
    TrainingSetup setup;
    setup.model.routing = routing;
    setup.model.num_hidden_layers = 3;
    const RoutingTrace one = trace_of(setup);
    ASSERT_EQ(one.sub_layers.size(), 4U);
    EXPECT_EQ(one.tokens, kWindows * kLength);
    for (const int ranks : {2, 3}) {
      setup.ranks = ranks;
      setup.chunks = ranks;
      const RoutingTrace many = trace_of(setup);
      for (std::size_t s = 0; s < 4; ++s) {
        EXPECT_EQ(many.sub_layers[s].block, s < 2 ? 0 : 2);
        EXPECT_EQ(many.sub_layers[s].group, static_cast<int>(s % 2));
        EXPECT_EQ(many.sub_layers[s].ids, one.sub_layers[s].ids) << routing;
        EXPECT_EQ(many.sub_layers[s].speculative_ids, one.sub_layers[s].speculative_ids);
        EXPECT_EQ(one.sub_layers[s].speculative_ids.empty(), s % 2 == 0);
      }
    }
  }
}

TEST_F(TraceRecorderTest, WithoutItsInfluenceSpeculationIsRight) {
  TrainingSetup setup;
  setup.adjust_weights = [](ParameterStore& store) {  // A adds nothing to the residual
    for (const NamedTensor& tensor : store.tensors()) {
      const bool of_a = tensor.name.find(".mlp0.") != std::string::npos ||
                        tensor.name.find(".res_mlp0.") != std::string::npos;
      if (of_a && tensor.name.ends_with("down_proj.weight")) {
        std::ranges::fill(store.weights().subspan(static_cast<std::size_t>(tensor.offset),
                                                  static_cast<std::size_t>(tensor.shape.numel())),
                          0.0F);
      }
    }
  };
  const RoutingTrace trace = trace_of(setup);
  EXPECT_EQ(trace.sub_layers[1].speculative_ids, trace.sub_layers[1].ids);
  setup.adjust_weights = {};
  const RoutingTrace with_a = trace_of(setup);
  EXPECT_NE(with_a.sub_layers[1].speculative_ids, with_a.sub_layers[1].ids);
}

TEST_F(TraceRecorderTest, AMaskLeavesOutTheMostProbable) {
  TrainingSetup setup;
  setup.model.moe_top_k = 3;
  const RoutingTrace ranked = trace_of(setup);  // the three most probable, in order
  setup.model.moe_top_k = 2;
  const RoutingTrace masked = trace_of(setup, {.experts = 1});
  for (std::size_t t = 0; t < kWindows * kLength; ++t) {
    EXPECT_EQ(masked.sub_layers[0].ids[2 * t], ranked.sub_layers[0].ids[3 * t + 1]);
    EXPECT_EQ(masked.sub_layers[0].ids[2 * t + 1], ranked.sub_layers[0].ids[3 * t + 2]);
    const float sum = masked.sub_layers[0].gates[2 * t] + masked.sub_layers[0].gates[2 * t + 1];
    EXPECT_NEAR(sum, 1, 1e-6);
  }
}

TEST_F(TraceRecorderTest, FirstLayersCanBeLeftAlone) {
  TrainingSetup setup;
  setup.model.num_hidden_layers = 3;
  const RoutingTrace plain = trace_of(setup);
  const RoutingTrace masked = trace_of(setup, {.experts = 1, .first_layer = 1});
  EXPECT_EQ(masked.sub_layers[0].ids, plain.sub_layers[0].ids);
  EXPECT_EQ(masked.sub_layers[1].ids, plain.sub_layers[1].ids);
  EXPECT_NE(masked.sub_layers[2].ids, plain.sub_layers[2].ids);
}

}  // namespace
}  // namespace cartesian::test
