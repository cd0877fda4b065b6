// The model's forward and all its gradients against a float64 transcription of the equations.

#include <gtest/gtest.h>

#include "comm/local_transport.h"
#include "runtime/train/balance_loss.h"
#include "tests/support/tiny_training.h"

namespace cartesian::test {
namespace {

constexpr std::int64_t kLength = 6;
constexpr std::int64_t kSequences = 2;
constexpr double kBalance = 0.3;            // large enough to be seen in every router's gradient
constexpr std::int64_t kFirstToken = 1000;  // of the micro-batch, in training

struct Case {
  std::int64_t sub_layers;
  bool shared;
  std::int64_t top_k;
  DType dtype = DType::f32;
  int chunks = 1;
  /// One with which no choice hangs on rounding, and no gradient is what is left of large terms
  /// that cancel (a mix's bias has a sum over tokens of terms of either sign).
  std::uint64_t seed = 7;
  std::string routing = "top_k";
  std::int64_t grain_level = 2;
  bool documents = false;  ///< attention stops at the boundaries of Tokens::document_starts
  /// With the z-loss, noise on the routers' input and, of top_k, a bias in the choice.
  bool balanced = false;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.sub_layers << " sub-layers"; }

std::string name_of_case(const testing::TestParamInfo<Case>& info) {
  const Case& c = info.param;
  return "layers" + std::to_string(c.sub_layers) + (c.shared ? "_shared" : "_bare") + "_top" +
         std::to_string(c.top_k) + (c.dtype == DType::f32 ? "_f32" : "_bf16") + "_chunks" +
         std::to_string(c.chunks) + "_" + c.routing + "_grain" + std::to_string(c.grain_level) +
         (c.documents ? "_documents" : "") + (c.balanced ? "_balanced" : "");
}

ModelConfig model_of(const Case& c) {
  ModelConfig config = tiny_model();
  config.sub_layers = c.sub_layers;
  config.use_residual = c.shared;
  config.moe_top_k = c.top_k;
  config.routing = c.routing;
  config.grain_level = c.grain_level;
  config.document_attention = c.documents;
  config.router_bias = c.balanced && c.routing == "top_k";
  return config;
}

/// What the routers do in training, of A and of B.
TrainConfig train_of(const Case& c) {
  TrainConfig train;
  train.seed = 11;
  if (c.balanced) {
    train.z_loss.values = {0.2, 0.1};
    train.router_jitter.values = {0.3, 0.2};
  }
  return train;
}

RouterTraining router_training(const TrainConfig& train, double tokens) {
  RouterTraining training{.seed = static_cast<std::uint64_t>(train.seed),
                          .first_token = kFirstToken};
  for (std::size_t s = 0; s < 2; ++s) {
    training.jitter.at(s) = static_cast<float>(train.router_jitter.of(s));
    training.z_loss.at(s) = static_cast<float>(train.z_loss.of(s) / tokens);
  }
  return training;
}

/// mean loss + kBalance * balance loss + the z-losses.
template <class T>
T objective_of(const Case& c, const ReferenceResult<T>& result) {
  T sum = 0;
  for (const T& loss : result.losses) {
    sum += loss;
  }
  T total = sum / T(double(kLength * kSequences)) + T(kBalance) * result.balance_loss;
  for (std::size_t s = 0; s < result.z_loss.size(); ++s) {
    const std::size_t group = s % static_cast<std::size_t>(c.sub_layers);
    total += T(train_of(c).z_loss.of(group)) * result.z_loss[s];
  }
  return total;
}

struct Expected {
  double loss_sum = 0;
  double balance_loss = 0;
  std::vector<double> z_loss;
  double smallest_gap = 0;
  std::vector<ReferenceRouting> routing;
  ReferenceWeights<double> gradients;
};

struct Tokens {
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> targets;
  std::vector<std::int32_t> document_starts;  ///< of two sequences; empty: causal attention
};

Tokens tokens_of(const ModelConfig& config) {
  return {random_ids(1, kLength * kSequences, config.vocab_size),
          random_ids(2, kLength * kSequences, config.vocab_size),
          config.document_attention ? std::vector<std::int32_t>{0, 0, 2, 2, 2, 5, 0, 1, 1, 1, 1, 1}
                                    : std::vector<std::int32_t>{}};
}

template <class T>
ReferenceResult<T> run_reference(const Case& c, const ReferenceWeights<T>& weights) {
  const ModelConfig config = model_of(c);
  const Tokens tokens = tokens_of(config);
  return reference_model(config, weights,
                         {.ids = tokens.ids,
                          .targets = tokens.targets,
                          .length = kLength,
                          .document_starts = tokens.document_starts,
                          .jitter = reference_jitter(train_of(c), kFirstToken)});
}

/// objective_of() and its derivatives.
Expected differentiate(const Case& c, const ReferenceWeights<double>& weights) {
  Tape tape;
  ReferenceWeights<Var> variables;
  for (const auto& [name, values] : weights) {
    for (const double value : values) {
      variables[name].push_back(tape.variable(value));
    }
  }
  const ReferenceResult<Var> result = run_reference(c, variables);
  const std::vector<double> derivatives = tape.gradients(objective_of(c, result));
  Expected expected{0, result.balance_loss.value(), {}, result.smallest_gap, result.routing, {}};
  for (const Var& loss : result.losses) {
    expected.loss_sum += loss.value();
  }
  for (const Var& z_loss : result.z_loss) {
    expected.z_loss.push_back(z_loss.value());
  }
  for (const auto& [name, values] : variables) {
    for (const Var& value : values) {
      expected.gradients[name].push_back(derivatives[value.index()]);
    }
  }
  return expected;
}

double objective(const Case& c, const ReferenceWeights<double>& weights) {
  return objective_of(c, run_reference(c, weights));
}

class ReferenceTest : public testing::TestWithParam<Case> {};

TEST_P(ReferenceTest, ForwardAndGradients) {
  const Case& c = GetParam();
  const ModelConfig config = model_of(c);
  const double tolerance = c.dtype == DType::f32 ? 1e-5 : 0.06;
  run_local_ranks(1, [&](Transport& transport) {
    const Topology topology = Topology::single_node(1);
    const Placement placement = Placement::linear(placement_shape(config, 1), 1);
    Metrics metrics;
    SteadyClock clock;
    ModelRank rank(config, placement, topology, transport, metrics, clock,
                   {.dtype = c.dtype, .chunks = c.chunks});
    randomize_weights(rank.parameters(), c.seed);
    rank.pack();
    const Expected expected =
        differentiate(c, by_name(rank.parameters(), rank.parameters().weights()));
    // Beyond what rounding may change, so that both choose the same experts.
    ASSERT_GT(expected.smallest_gap, c.dtype == DType::f32 ? 1e-5 : 1e-3);

    auto [ids, targets, starts] = tokens_of(config);
    const double tokens = kLength * kSequences;
    const Shape shape{kLength * kSequences};
    rank.context().training = router_training(train_of(c), tokens);
    const double loss_sum = rank.model().forward(
        rank.context(),
        {.ids = Tensor(ids.data(), shape),
         .targets = Tensor(targets.data(), shape),
         .document_starts = c.documents ? Tensor(starts.data(), shape) : Tensor(),
         .length = kLength},
        static_cast<float>(1 / tokens));
    EXPECT_NEAR(loss_sum, expected.loss_sum, tolerance * expected.loss_sum);
    ASSERT_EQ(rank.model().loads().size(), expected.routing.size());
    for (std::size_t i = 0; i < expected.routing.size(); ++i) {
      EXPECT_EQ(rank.model().loads()[i].counts, expected.routing[i].counts);
      EXPECT_LT(norm_relative_error(rank.model().loads()[i].probabilities,
                                    expected.routing[i].probabilities),
                tolerance);
      EXPECT_NEAR(rank.model().loads()[i].z_loss / tokens, expected.z_loss[i],
                  tolerance * (1 + expected.z_loss[i]));
    }
    const ArenaScope scope(rank.context().op.scratch);
    const BalanceLoss balance =
        balance_loss(rank.context().op.scratch, rank.model().loads(), tokens, kBalance);
    EXPECT_NEAR(balance.value, expected.balance_loss, tolerance * expected.balance_loss);
    rank.model().backward(rank.context(), balance.dprobability);

    const auto gradients = by_name(rank.parameters(), rank.parameters().gradients());
    ASSERT_EQ(gradients.size(), expected.gradients.size());
    for (const auto& [name, values] : expected.gradients) {
      EXPECT_LT(norm_relative_error(gradients.at(name), values), tolerance) << name;
    }
  });
}

INSTANTIATE_TEST_SUITE_P(
    Systems, ReferenceTest,
    testing::Values(Case{1, false, 1}, Case{1, false, 2}, Case{1, true, 1},
                    Case{1, true, 2, DType::f32, 1, 3}, Case{2, false, 1}, Case{2, false, 2},
                    Case{2, true, 1}, Case{2, true, 2}, Case{0, false, 1}, Case{2, true, 4},
                    Case{2, true, 2, DType::f32, 3}, Case{2, true, 2, DType::bf16},
                    Case{1, false, 1, DType::bf16, 1, 9},
                    Case{1, true, 2, DType::f32, 1, 7, "top_k", 1},
                    Case{1, true, 3, DType::f32, 2, 7, "top_k", 3},
                    Case{1, true, 2, DType::f32, 1, 7, "top_p", 1},
                    Case{1, false, 2, DType::f32, 3, 7, "top_p", 2},
                    Case{2, true, 2, DType::f32, 2, 7, "top_p", 2},
                    Case{1, true, 2, DType::f32, 1, 7, "hash", 1},
                    Case{1, false, 2, DType::f32, 2, 7, "hash", 1},
                    Case{2, true, 3, DType::f32, 1, 1, "hash", 2},
                    Case{2, true, 2, DType::f32, 2, 7, "top_k", 2, true},
                    Case{1, false, 1, DType::f32, 2, 7, "top_k", 1, false, true},
                    Case{2, true, 2, DType::f32, 1, 7, "top_k", 2, false, true},
                    Case{2, false, 2, DType::f32, 3, 7, "top_k", 2, false, true},
                    Case{2, true, 2, DType::f32, 2, 7, "top_p", 2, false, true}),
    name_of_case);

// The reference's own derivatives, so that the tape is not taken on trust.
TEST(ReferenceModel, DerivativesAreThoseOfFiniteDifferences) {
  const Case c{.sub_layers = 2, .shared = true, .top_k = 2, .balanced = true};
  const ModelConfig config = model_of(c);
  ReferenceWeights<double> weights;
  {
    ParameterStore store;
    LanguageModel model(config, Placement::linear(placement_shape(config, 1), 1), 0, store);
    randomize_weights(store, 7);
    weights = by_name(store, store.weights());
  }
  const Expected expected = differentiate(c, weights);
  for (auto& [name, values] : weights) {
    for (std::size_t i = 0; i < values.size(); i += 1 + values.size() / 3) {
      constexpr double kStep = 1e-6;
      const double centre = values[i];
      values[i] = centre + kStep;
      const double above = objective(c, weights);
      values[i] = centre - kStep;
      const double below = objective(c, weights);
      values[i] = centre;
      EXPECT_NEAR(expected.gradients.at(name)[i], (above - below) / (2 * kStep), 1e-8)
          << name << '[' << i << ']';
    }
  }
}

}  // namespace
}  // namespace cartesian::test
