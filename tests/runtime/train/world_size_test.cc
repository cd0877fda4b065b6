// A training run is the same run on any number of ranks, with any placement, chunks and nodes: the
// losses agree within 1e-5, every token visits the same experts, and one rank agrees with the
// float64 reference. CARTESIAN_FULL=1 runs many seeds.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <functional>
#include <map>
#include <numeric>
#include <optional>
#include <tuple>

#include "base/random.h"
#include "tests/support/tiny_training.h"

namespace cartesian::test {
namespace {

constexpr double kTolerance = 1e-5;
// Terms of a gradient are right to three roundings (seen: 1.9e-7 of the terms, in sums 24 times
// smaller); of a sum that is so much smaller than its terms kTolerance is still left.
constexpr double kCancellation = 50;

struct Case {
  std::string name;
  int ranks = 1;
  std::int64_t experts = 4;
  std::int64_t batch_sequences = 8;
  std::int64_t micro_batches = 1;
  std::vector<std::int64_t> node_sizes = {};
  std::string placement = "linear";  ///< "file": hot_replicas()
  std::int64_t expert_ranks = 0;
  int chunks = 1;
  bool twice = false;       ///< run again: the same bits
  bool one_expert = false;  ///< every token to expert 0 of every sub-layer
  std::int64_t sub_layers = 2;
  std::string routing = "top_k";
  std::int64_t grain_level = 2;
  bool documents = false;  ///< attention stops at document boundaries
  double z_loss = 0;
  double balance_bias = 0;
  double jitter = 0;
  bool recompute = false;        ///< on many ranks
  bool shard_optimizer = false;  ///< on many ranks
  ExchangeOptions exchange = {};
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

/// Experts with several replicas, unevenly: expert e of sub-layer s on ranks that both decide.
Placement hot_replicas(const PlacementShape& shape) {
  std::vector<std::vector<int>> replicas;
  const int count = shape.layers * shape.groups * shape.experts;
  for (int i = 0; i < count; ++i) {
    const int first = (i * 7 + i / shape.experts) % shape.ranks;
    std::vector<int> ranks = {first};
    if (i % 3 != 0) {
      ranks.push_back((first + 1) % shape.ranks);
    }
    if (i % 4 == 1) {
      ranks.resize(static_cast<std::size_t>(shape.ranks));
      std::iota(ranks.begin(), ranks.end(), 0);
    }
    std::ranges::sort(ranks);
    replicas.push_back(ranks);
  }
  return {shape, replicas};
}

/// Makes expert 0 win for every token: the first component of the residual stream is large. By a
/// margin that leaves the router a gradient, see is_steady().
void send_all_to_expert_0(ParameterStore& store) {
  for (const NamedTensor& tensor : store.tensors()) {
    const auto values = store.weights().subspan(static_cast<std::size_t>(tensor.offset),
                                                static_cast<std::size_t>(tensor.shape.numel()));
    if (tensor.name == "model.embed_tokens.weight") {
      const auto hidden = static_cast<std::size_t>(tensor.shape[1]);
      for (std::size_t i = 0; i < values.size(); i += hidden) {
        values[i] = 20;
      }
    } else if (tensor.name.find(".wg") != std::string::npos) {
      values[0] = 2;
    } else if (tensor.name.ends_with("layernorm.weight")) {
      values[0] = 1;
    }
  }
}

TrainingSetup setup_of(const Case& c, std::uint64_t seed) {
  TrainingSetup setup;
  setup.model.num_hidden_layers = 3;  // MoE, dense, MoE
  setup.model.num_experts = c.experts;
  setup.model.sub_layers = c.sub_layers;
  setup.model.routing = c.routing;
  setup.model.grain_level = c.grain_level;
  setup.model.document_attention = c.documents;
  setup.model.router_bias = c.balance_bias > 0;
  setup.train = tiny_train();
  setup.train.eps = 1e-5;  // else where gradients vanish AdamW makes whole steps of their rounding
  setup.train.z_loss = c.z_loss;
  setup.train.balance_bias = c.balance_bias;
  setup.train.router_jitter = c.jitter;
  setup.train.batch_sequences = c.batch_sequences;
  setup.train.micro_batch_sequences = c.batch_sequences / c.micro_batches;
  setup.weight_seed = seed;
  if (c.one_expert) {
    setup.model.moe_top_k = 1;
    setup.adjust_weights = send_all_to_expert_0;
  }
  return setup;
}

/// Compares every step of a run of one rank with the reference, from the weights it begins with.
class ReferenceObserver {
 public:
  ReferenceObserver(const TrainingSetup& setup, const SyntheticData& data)
      : setup_(setup), data_(data) {}

  void before_step(ModelRank& rank, std::int64_t step) {
    const auto weights = by_name(rank.parameters(), rank.parameters().weights());
    double loss = 0;
    for_each_micro_batch(step, [&](const ReferenceBatch& batch) {
      auto result = reference_model(setup_.model, weights, batch);
      loss += std::accumulate(result.losses.begin(), result.losses.end(), 0.0);
      smallest_gap_ = std::min(smallest_gap_, result.smallest_gap);
      routing_.push_back(std::move(result.routing));
    });
    losses_.push_back(
        loss / static_cast<double>(setup_.train.batch_sequences * setup_.train.sequence_length));
    if (step == 0) {
      cancellation_ = largest_cancellation(weights);
    }
  }

  /// Whether float32 has enough digits: no choice hangs on rounding, and no gradient loses too
  /// many.
  bool well_conditioned() const { return smallest_gap_ > 1e-5 && cancellation_ < kCancellation; }

  void compare(const TrainingRecord& record) const {
    auto routing = routing_.begin();
    for (std::size_t step = 0; step < record.steps.size(); ++step) {
      EXPECT_NEAR(record.steps[step].result.loss, losses_[step], kTolerance * losses_[step]);
      for (const auto& micro_batch : record.steps[step].experts) {
        for (std::size_t s = 0; s < micro_batch.size(); ++s) {
          for (std::size_t t = 0; t < micro_batch[s].size(); ++t) {
            const std::set<int>& chosen = (*routing)[s].chosen[t];
            ASSERT_EQ(micro_batch[s][t], ExpertSet(chosen.begin(), chosen.end()))
                << "step " << step << ", sub-layer " << s << ", token " << t;
          }
        }
        ++routing;
      }
    }
  }

 private:
  void for_each_micro_batch(std::int64_t step,
                            const std::function<void(const ReferenceBatch&)>& take) const {
    const TrainConfig& train = setup_.train;
    const auto tokens =
        static_cast<std::size_t>(train.micro_batch_sequences * train.sequence_length);
    std::vector<std::int32_t> ids(tokens), targets(tokens);
    std::vector<std::int32_t> starts(setup_.model.document_attention ? tokens : 0);
    for (std::int64_t done = 0; done < train.batch_sequences; done += train.micro_batch_sequences) {
      const std::int64_t first = step * train.batch_sequences + done;
      data_.samples().fill(first, train.micro_batch_sequences, ids, targets);
      if (!starts.empty()) {
        data_.samples().fill_document_starts(first, train.micro_batch_sequences, starts);
      }
      take({.ids = ids,
            .targets = targets,
            .length = train.sequence_length,
            .document_starts = starts,
            .jitter = reference_jitter(train, first * train.sequence_length)});
    }
  }

  /// A mix's bias has a sum over all tokens of terms of either sign: how much larger their absolute
  /// values' sum is than it, in the worst of the mixes.
  double largest_cancellation(const ReferenceWeights<double>& weights) const {
    Tape tape;
    ReferenceWeights<Var> variables;
    for (const auto& [name, values] : weights) {
      for (const double value : values) {
        variables[name].push_back(tape.variable(value));
      }
    }
    Var loss;
    for_each_micro_batch(0, [&](const ReferenceBatch& batch) {
      for (const Var& token : reference_model(setup_.model, variables, batch).losses) {
        loss += token;
      }
    });
    const auto gradients = tape.gradients(loss);
    const auto magnitudes = tape.magnitudes(loss);
    double largest = 0;
    for (const auto& [name, values] : variables) {
      if (name.find("coefficient") != std::string::npos && name.ends_with(".bias")) {
        const std::size_t i = values[0].index();
        largest = std::max(largest, magnitudes[i] / std::abs(gradients[i]));
      }
    }
    return largest;
  }

  const TrainingSetup& setup_;
  const SyntheticData& data_;
  double cancellation_ = 0;
  double smallest_gap_ = std::numeric_limits<double>::infinity();
  std::vector<double> losses_;                          // [steps]
  std::vector<std::vector<ReferenceRouting>> routing_;  // [steps * micro-batches]
};

/// Where the runs are not equal, one sentence each.
std::vector<std::string> differences(const TrainingRecord& actual, const TrainingRecord& expected,
                                     double tolerance = kTolerance) {
  std::vector<std::string> found;
  const auto compare = [&](const std::string& what, double a, double e) {
    if (!(std::abs(a - e) <= tolerance * std::abs(e))) {
      found.push_back(fmt::format("{} is {}, not {}", what, a, e));
    }
  };
  const auto require = [&](bool equal, const std::string& what) {
    if (!equal) {
      found.push_back(what + " differ");
    }
  };
  require(actual.steps.size() == expected.steps.size(), "the numbers of steps");
  for (std::size_t i = 0; i < std::min(actual.steps.size(), expected.steps.size()); ++i) {
    const StepResult& a = actual.steps[i].result;
    const StepResult& e = expected.steps[i].result;
    compare(fmt::format("loss of step {}", i), a.loss, e.loss);
    compare(fmt::format("balance loss of step {}", i), a.balance_loss, e.balance_loss);
    compare(fmt::format("z-loss of step {}", i), a.z_loss, e.z_loss);
    require(a.largest_bias == e.largest_bias, fmt::format("largest biases of step {}", i));
    require(actual.steps[i].experts == expected.steps[i].experts,
            fmt::format("choices of step {}", i));
    for (std::size_t s = 0; s < a.loads.size(); ++s) {
      require(a.loads[s].counts == e.loads[s].counts, fmt::format("loads of step {}", i));
    }
  }
  // Gradients only where both runs have the same weights: later, steep places of the loss magnify
  // rounding (a change of some weights by one part in 4 million moved a later norm by 1e-3).
  compare("gradient norm", actual.steps[0].result.gradient_norm,
          expected.steps[0].result.gradient_norm);
  for (const auto& [name, values] : expected.steps[0].gradients) {
    const double error = norm_relative_error(actual.steps[0].gradients.at(name), values);
    if (!(error < tolerance)) {
      found.push_back(fmt::format("the gradient of {} is off by {}", name, error));
    }
  }
  return found;
}

/// Changes one weight in sixteen by about a rounding, up or down: as much as another order of sums
/// changes of the arithmetic.
void nudge(ParameterStore& store, std::uint64_t key) {
  constexpr float kRounding = 0x1p-23F;
  std::uint64_t i = 0;
  for (float& weight : store.weights()) {
    const std::uint64_t bits = random_bits(key, i++);
    if (bits % 16 == 0) {
      weight *= (bits & 16U) == 0 ? 1 + kRounding : 1 - kRounding;
    }
  }
}

/// Whether float32 has enough digits for the run to be the same wherever it is rounded: it hardly
/// changes with its initial weights. Where gradients vanish it does, since of what rounding makes
/// of them AdamW makes steps as large as of any.
bool is_steady(const TrainingRecord& record, const TrainingSetup& setup,
               const SyntheticData& data) {
  constexpr std::uint64_t kNudges = 3;
  for (std::uint64_t key = 1; key <= kNudges; ++key) {
    TrainingSetup nudged = setup;
    nudged.adjust_weights = [&](ParameterStore& store) {
      if (setup.adjust_weights) {
        setup.adjust_weights(store);
      }
      nudge(store, key);
    };
    if (!differences(train(nudged, data), record, kTolerance).empty()) {
      return false;
    }
  }
  return true;
}

void expect_same_bits(const TrainingRecord& a, const TrainingRecord& b) {
  for (std::size_t i = 0; i < a.steps.size(); ++i) {
    EXPECT_EQ(a.steps[i].result.loss, b.steps[i].result.loss);
  }
  EXPECT_EQ(a.weights, b.weights);
  EXPECT_EQ(a.first_moments, b.first_moments);
  EXPECT_EQ(a.second_moments, b.second_moments);
}

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
