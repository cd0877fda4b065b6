#pragma once
// Training runs of tiny models on local ranks, recorded so that two runs can be compared: losses,
// norms, every token's experts, gradients and weights by tensor name.

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "runtime/data/sample_order.h"
#include "runtime/train/training_step.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/tiny_model.h"

namespace cartesian::test {

/// A token file of `tokens` ids below `vocabulary` that a model can learn something from, and the
/// order in which a run sees it. Immutable, thread-safe.
class SyntheticData {
 public:
  /// One document, or documents of 1 to `longest_document` tokens.
  SyntheticData(std::int64_t vocabulary, std::int64_t tokens, std::int64_t length,
                std::uint64_t seed, std::int64_t longest_document = 0);

  const SampleOrder& samples() const { return *samples_; }
  const TokenWindows& windows() const { return *windows_; }

 private:
  TemporaryDirectory directory_;
  std::unique_ptr<FileSystem> files_;
  std::unique_ptr<TokenFile> file_;
  std::optional<TokenWindows> windows_;
  std::optional<SampleOrder> samples_;
};

struct TrainingSetup {
  ModelConfig model = tiny_model();
  TrainConfig train;
  int ranks = 1;
  std::vector<std::int64_t> node_sizes;  ///< empty: one node
  std::string placement = "linear";      ///< as parallel.placement
  std::int64_t expert_ranks = 0;         ///< as parallel.expert_ranks
  int chunks = 1;
  ExchangeOptions exchange;
  bool recompute = false;
  bool shard_optimizer = false;
  DType dtype = DType::f32;
  std::uint64_t weight_seed = 7;
  /// Changes the initial weights; called on every rank with the tensors that it has.
  std::function<void(ParameterStore&)> adjust_weights;
};

/// Sensible settings of 20 steps for tiny_model().
TrainConfig tiny_train();

/// The noise of a training's routers as kernels/jitter.h defines it, for the micro-batch whose
/// first token is the `first_token`-th of training. Empty without jitter.
ReferenceJitter reference_jitter(const TrainConfig& train, std::int64_t first_token);

/// The experts of a token in a sub-layer, ascending.
using ExpertSet = std::vector<std::int32_t>;

struct StepRecord {
  StepResult result;
  /// [micro-batch][layer * sub-layers + sub-layer][token of the micro-batch].
  std::vector<std::vector<std::vector<ExpertSet>>> experts;
  ReferenceWeights<double> gradients;  ///< after synchronisation, before clipping
};

struct TrainingRecord {
  std::vector<StepRecord> steps;
  ReferenceWeights<double> weights;  ///< at the end
  ReferenceWeights<double> first_moments;
  ReferenceWeights<double> second_moments;
};

/// Runs body(rank) on the rank of `transport`, of setup.ranks, with its model, weights randomised
/// and packed.
void with_rank(const TrainingSetup& setup, Transport& transport,
               const std::function<void(ModelRank&)>& body);

/// Runs body(rank) on `setup.ranks` local ranks, each with its model, weights randomised and
/// packed.
void with_ranks(const TrainingSetup& setup, const std::function<void(ModelRank&)>& body);

/// Trains for setup.train.steps. Fails the test if two ranks differ in a result or in a replica.
/// `before_step` is called on rank 0 of a run of one rank.
TrainingRecord train(const TrainingSetup& setup, const SyntheticData& data,
                     const std::function<void(ModelRank&, std::int64_t)>& before_step = {});

/// On every rank what dense_bounds() spreads over all, beside this rank's experts: laid out as the
/// weights. Of a store that is not sharded a copy. Collective.
std::vector<float> whole_gradients(ModelRank& rank);
std::vector<float> whole_first_moments(ModelRank& rank);
std::vector<float> whole_second_moments(ModelRank& rank);

/// Copies `part` into `whole`; a tensor that is there already must have the same bits.
void merge_same(const ReferenceWeights<double>& part, ReferenceWeights<double>& whole);

}  // namespace cartesian::test
