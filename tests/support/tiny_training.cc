#include "tests/support/tiny_training.h"

#include <mutex>

#include "comm/collectives.h"
#include "comm/local_transport.h"
#include "runtime/data/staged_files.h"
#include "runtime/data/token_file_writer.h"

namespace cartesian::test {

namespace {

/// A step's choices, gathered from all ranks.
class RoutingRecorder {
 public:
  RoutingRecorder(const TrainingSetup& setup, std::vector<StepRecord>& steps)
      : setup_(setup), steps_(steps) {
    const TrainConfig& train = setup.train;
    const std::vector<ExpertSet> tokens(
        static_cast<std::size_t>(train.micro_batch_sequences * train.sequence_length));
    const std::vector<std::vector<ExpertSet>> sub_layers(
        static_cast<std::size_t>(setup.model.moe_layers() * setup.model.sub_layers), tokens);
    const auto micro_batches =
        static_cast<std::size_t>(train.batch_sequences / train.micro_batch_sequences);
    for (StepRecord& step : steps_) {
      step.experts.assign(micro_batches, sub_layers);
    }
  }

  /// `call` counts this rank's calls since its first step.
  void add(std::size_t call, const RoutedChunk& routing) {
    const auto per_micro_batch = static_cast<std::size_t>(setup_.model.moe_layers()) *
                                 static_cast<std::size_t>(setup_.chunks);
    const std::size_t micro_batch = call / per_micro_batch;
    const std::size_t per_step = steps_[0].experts.size();
    auto& sub_layers = steps_.at(micro_batch / per_step).experts.at(micro_batch % per_step);
    for (std::size_t group = 0; group < routing.choices.size(); ++group) {
      const auto first = static_cast<std::size_t>(routing.layer * setup_.model.sub_layers);
      add(routing.tokens, routing.choices[group].experts, sub_layers.at(first + group));
    }
  }

 private:
  void add(std::span<const SourceToken> numbers, const Tensor& experts,
           std::vector<ExpertSet>& tokens) {
    const std::int64_t k = experts.cols();
    for (std::int64_t row = 0; row < experts.rows(); ++row) {
      const std::int32_t* chosen = experts.data<std::int32_t>() + row * k;
      ExpertSet set(chosen, chosen + k);
      std::erase_if(set, [](std::int32_t expert) { return expert < 0; });
      std::ranges::sort(set);
      const std::lock_guard lock(mutex_);
      ExpertSet& slot =
          tokens.at(static_cast<std::size_t>(numbers[static_cast<std::size_t>(row)].token));
      EXPECT_TRUE(slot.empty()) << "a token was routed twice";
      slot = std::move(set);
    }
  }

  const TrainingSetup& setup_;
  std::mutex mutex_;
  std::vector<StepRecord>& steps_;  // guarded by mutex_ once the ranks run
};

void expect_same(const StepResult& a, const StepResult& b) {
  EXPECT_EQ(a.loss, b.loss);
  EXPECT_EQ(a.balance_loss, b.balance_loss);
  EXPECT_EQ(a.gradient_norm, b.gradient_norm);
  EXPECT_EQ(a.z_loss, b.z_loss);
  EXPECT_EQ(a.largest_bias, b.largest_bias);
  for (std::size_t i = 0; i < a.loads.size(); ++i) {
    EXPECT_EQ(a.loads[i].counts, b.loads.at(i).counts);
    EXPECT_EQ(a.loads[i].probabilities, b.loads.at(i).probabilities);
  }
}

}  // namespace

SyntheticData::SyntheticData(std::int64_t vocabulary, std::int64_t tokens, std::int64_t length,
                             std::uint64_t seed, std::int64_t longest_document)
    : files_(make_posix_file_system()) {
  // A walk that mostly steps by one or three: better predicted from the last token than without.
  std::vector<std::int32_t> ids = random_ids(seed, tokens, 8);
  std::int64_t at = 0;
  for (std::int32_t& id : ids) {
    at = (at + (id < 5 ? 1 : id < 7 ? 3 : 6)) % vocabulary;
    id = static_cast<std::int32_t>(at);
  }
  StagedFiles staged(*files_);
  TokenFileWriter writer(staged, directory_ / "data", vocabulary);
  const std::vector<std::int32_t> lengths = random_ids(seed + 1, longest_document == 0 ? 0 : tokens,
                                                       std::max<std::int64_t>(1, longest_document));
  std::span<const std::int32_t> rest(ids);
  for (std::size_t document = 0; !rest.empty(); ++document) {
    const std::size_t size =
        longest_document == 0
            ? rest.size()
            : std::min(rest.size(), static_cast<std::size_t>(lengths[document]) + 1);
    writer.append(rest.first(size));
    writer.end_document();
    rest = rest.subspan(size);
  }
  writer.finish();
  staged.publish();
  file_ = std::make_unique<TokenFile>(*files_, directory_ / "data");
  windows_.emplace(*file_, length);
  samples_.emplace(*windows_, seed);
}

ReferenceJitter reference_jitter(const TrainConfig& train, std::int64_t first_token) {
  if (!train.router_jitter.any()) {
    return {};
  }
  return
      [train, first_token](std::int64_t block, int group, std::size_t token, std::size_t column) {
        const std::uint64_t key =
            random_key(static_cast<std::uint64_t>(train.seed),
                       "router jitter " + std::to_string(block) + "." + std::to_string(group));
        const auto words = philox(key, static_cast<std::uint64_t>(first_token) + token, column / 4);
        const double u = static_cast<double>(words.at(column % 4) >> 8) * 0x1p-24;
        return 1 + train.router_jitter.of(static_cast<std::size_t>(group)) * (2 * u - 1);
      };
}

TrainConfig tiny_train() {
  return {.steps = 20,
          .batch_sequences = 8,
          .micro_batch_sequences = 8,
          .sequence_length = 6,
          .learning_rate = 3e-3,
          .min_learning_rate = 3e-4,
          .warmup_steps = 5};
}

void merge_same(const ReferenceWeights<double>& part, ReferenceWeights<double>& whole) {
  for (const auto& [name, values] : part) {
    const auto [entry, inserted] = whole.emplace(name, values);
    EXPECT_TRUE(inserted || entry->second == values) << name << " differs between ranks";
  }
}

namespace {

/// Every rank's share of the dense part of `array`, which is laid out as the weights.
std::vector<float> gather_dense(ModelRank& rank, std::vector<float> array) {
  const ParameterStore& store = rank.parameters();
  if (store.sharded()) {
    Transport& transport = rank.transport();
    all_gather_shares(transport, {Team::world(transport), store.dense_bounds(transport.size())},
                      std::span(array).first(static_cast<std::size_t>(store.dense_size())));
  }
  return array;
}

std::vector<float> whole_moments(ModelRank& rank, std::span<const float> held) {
  const ParameterStore& store = rank.parameters();
  const auto dense = static_cast<std::ptrdiff_t>(store.dense_moments().size());
  std::vector<float> array(static_cast<std::size_t>(store.size()));
  std::copy(held.begin(), held.begin() + dense, array.begin() + store.dense_moments().begin);
  std::copy(held.begin() + dense, held.end(), array.begin() + store.dense_size());
  return gather_dense(rank, std::move(array));
}

}  // namespace

std::vector<float> whole_gradients(ModelRank& rank) {
  const std::span<float> gradients = rank.parameters().gradients();
  return gather_dense(rank, {gradients.begin(), gradients.end()});
}

std::vector<float> whole_first_moments(ModelRank& rank) {
  return whole_moments(rank, rank.parameters().first_moments());
}

std::vector<float> whole_second_moments(ModelRank& rank) {
  return whole_moments(rank, rank.parameters().second_moments());
}

void with_rank(const TrainingSetup& setup, Transport& transport,
               const std::function<void(ModelRank&)>& body) {
  const auto files = make_posix_file_system();
  std::vector<int> sizes(setup.node_sizes.begin(), setup.node_sizes.end());
  if (sizes.empty()) {
    sizes = {setup.ranks};
  }
  const Topology topology = Topology::from_node_sizes(sizes, setup.ranks);
  const Placement placement = make_placement(
      *files, setup.model,
      {.expert_ranks = setup.expert_ranks, .node_sizes = {}, .placement = setup.placement},
      topology);
  Metrics metrics;
  const SteadyClock clock;
  ModelRank rank(setup.model, placement, topology, transport, metrics, clock,
                 {.dtype = setup.dtype,
                  .chunks = setup.chunks,
                  .recompute = setup.recompute,
                  .exchange = setup.exchange,
                  .shard_optimizer = setup.shard_optimizer});
  randomize_weights(rank.parameters(), setup.weight_seed);
  if (setup.adjust_weights) {
    setup.adjust_weights(rank.parameters());
  }
  rank.pack();
  body(rank);
}

void with_ranks(const TrainingSetup& setup, const std::function<void(ModelRank&)>& body) {
  run_local_ranks(setup.ranks, [&](Transport& transport) { with_rank(setup, transport, body); });
}

TrainingRecord train(const TrainingSetup& setup, const SyntheticData& data,
                     const std::function<void(ModelRank&, std::int64_t)>& before_step) {
  TrainingRecord record;
  record.steps.resize(static_cast<std::size_t>(setup.train.steps));
  RoutingRecorder recorder(setup, record.steps);
  std::mutex mutex;  // guards `record` but for the experts, which the recorder guards
  with_ranks(setup, [&](ModelRank& rank) {
    std::size_t calls = 0;
    rank.context().on_route = [&](const RoutedChunk& chunk) { recorder.add(calls++, chunk); };
    TrainingStep step(setup.train, rank, data.samples());
    ParameterStore& store = rank.parameters();
    for (std::int64_t i = 0; i < setup.train.steps; ++i) {
      if (before_step) {
        before_step(rank, i);
      }
      StepResult result = step.run(i);
      const std::vector<float> gradients = whole_gradients(rank);
      const std::lock_guard lock(mutex);
      StepRecord& recorded = record.steps[static_cast<std::size_t>(i)];
      if (recorded.gradients.empty()) {
        recorded.result = std::move(result);
      } else {
        expect_same(result, recorded.result);
      }
      merge_same(by_name(store, gradients), recorded.gradients);
    }
    const std::vector<float> first_moments = whole_first_moments(rank);
    const std::vector<float> second_moments = whole_second_moments(rank);
    const std::lock_guard lock(mutex);
    merge_same(by_name(store, store.weights()), record.weights);
    merge_same(by_name(store, first_moments), record.first_moments);
    merge_same(by_name(store, second_moments), record.second_moments);
  });
  return record;
}

}  // namespace cartesian::test
