#include "runtime/train/training_step.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "comm/collectives.h"

namespace cartesian {

SequenceRange sequences_of_rank(std::int64_t total, int rank, int ranks) {
  const std::int64_t first = total * rank / ranks;
  return {first, total * (rank + 1) / ranks - first};
}

TrainingStep::TrainingStep(const TrainConfig& config, ModelRank& rank, const SampleOrder& samples)
    : config_(config),
      rank_(rank),
      samples_(samples),
      optimizer_(config, rank.parameters()),
      gradients_(rank.transport(), rank.topology(), rank.parameters()) {}

StepResult TrainingStep::run(std::int64_t step) {
  StepResult result;
  result.learning_rate = learning_rate(config_, step);
  result.loads.assign(rank_.model().loads().begin(), rank_.model().loads().end());
  for (RouterLoad& load : result.loads) {
    std::ranges::fill(load.counts, 0.0);
    std::ranges::fill(load.probabilities, 0.0);
    load.z_loss = 0;
  }
  RankContext& context = rank_.context();
  ParameterStore& parameters = rank_.parameters();
  std::ranges::fill(parameters.gradients(), 0.0F);
  for (std::int64_t done = 0; done < config_.batch_sequences;
       done += config_.micro_batch_sequences) {
    run_micro_batch(step * config_.batch_sequences + done, step, result);
  }
  {
    const PhaseTimer timer(context.times, context.op.clock, Phase::gradient_sync);
    gradients_.finish(context.op);
    result.gradient_norm = global_gradient_norm(context.op, rank_.transport(), parameters);
  }
  if (!std::isfinite(result.gradient_norm)) {
    throw NumericError(
        fmt::format("step {}: the gradient is not finite; the weights were left as they were",
                    step + 1),
        /*on_every_rank=*/true);
  }
  const PhaseTimer timer(context.times, context.op.clock, Phase::optimizer);
  const bool clip = config_.clip_norm > 0 && result.gradient_norm > config_.clip_norm;
  optimizer_.update(context.op, step, clip ? config_.clip_norm / result.gradient_norm : 1.0);
  gather_weights(rank_.transport(), parameters);
  const std::array rates = {config_.balance_bias.of(0), config_.balance_bias.of(1)};
  result.largest_bias = rank_.model().move_biases(result.loads, rates);
  rank_.pack();
  return result;
}

void TrainingStep::run_micro_batch(std::int64_t first_sequence, std::int64_t step,
                                   StepResult& result) {
  const std::int64_t length = config_.sequence_length;
  const std::int64_t sequences = config_.micro_batch_sequences;
  const auto share =
      sequences_of_rank(sequences, rank_.transport().rank(), rank_.transport().size());
  const auto tokens = static_cast<std::size_t>(share.count * length);
  ids_.resize(tokens);
  targets_.resize(tokens);
  samples_.fill(first_sequence + share.first, share.count, ids_, targets_);

  RankContext& context = rank_.context();
  LanguageModel& model = rank_.model();
  const Shape shape{share.count * length};
  Tensor document_starts;
  if (model.config().document_attention) {
    document_starts_.resize(tokens);
    samples_.fill_document_starts(first_sequence + share.first, share.count, document_starts_);
    document_starts = Tensor(document_starts_.data(), shape);
  }
  const auto step_tokens = static_cast<double>(config_.batch_sequences * length);
  model.clear_loads();
  context.training = router_training(first_sequence);
  const double local_loss = model.forward(context,
                                          {.ids = Tensor(ids_.data(), shape),
                                           .targets = Tensor(targets_.data(), shape),
                                           .document_starts = document_starts,
                                           .length = length,
                                           .first_token = share.first * length},
                                          static_cast<float>(1 / step_tokens));
  const double loss_sum = reduce_micro_batch(local_loss);
  if (!std::isfinite(loss_sum)) {
    throw NumericError(
        fmt::format("step {}: the loss is not finite; the weights were left as they were",
                    step + 1),
        /*on_every_rank=*/true);
  }
  const ArenaScope scope(context.op.scratch);
  const BalanceLoss of_loads = balance(context.op.scratch);
  if (first_sequence + sequences >= (step + 1) * config_.batch_sequences) {
    // No later micro-batch adds to the gradients.
    context.on_gradients = [&](const ElementRange& dense, int layer) {
      const PhaseTimer timer(context.times, context.op.clock, Phase::gradient_sync);
      gradients_.begin(context.op, dense, layer);
    };
  }
  model.backward(context, of_loads.dprobability);
  context.on_gradients = {};
  context.training = {};

  result.loss += loss_sum / step_tokens;
  result.balance_loss += of_loads.value * static_cast<double>(sequences) /
                         static_cast<double>(config_.batch_sequences);
  add_loads(result);
  for (const RouterLoad& load : model.loads()) {
    result.z_loss += load.z_loss / step_tokens;
  }
}

RouterTraining TrainingStep::router_training(std::int64_t first_sequence) const {
  RouterTraining training{.seed = static_cast<std::uint64_t>(config_.seed),
                          .first_token = first_sequence * config_.sequence_length};
  const auto step_tokens = static_cast<double>(config_.batch_sequences * config_.sequence_length);
  for (std::size_t s = 0; s < training.jitter.size(); ++s) {
    training.jitter.at(s) = static_cast<float>(config_.router_jitter.of(s));
    training.z_loss.at(s) = static_cast<float>(config_.z_loss.of(s) / step_tokens);
  }
  return training;
}

BalanceLoss TrainingStep::balance(Arena& arena) const {
  const auto tokens = static_cast<double>(config_.micro_batch_sequences * config_.sequence_length);
  const double weight = static_cast<double>(config_.micro_batch_sequences) /
                        static_cast<double>(config_.batch_sequences);
  std::vector<double> scales = config_.balance_loss.values;
  for (double& scale : scales) {
    scale *= weight;
  }
  return balance_loss(arena, rank_.model().loads(), tokens, scales);
}

void TrainingStep::add_loads(StepResult& result) const {
  for (std::size_t i = 0; i < result.loads.size(); ++i) {
    std::ranges::transform(result.loads[i].counts, rank_.model().loads()[i].counts,
                           result.loads[i].counts.begin(), std::plus<>());
    std::ranges::transform(result.loads[i].probabilities, rank_.model().loads()[i].probabilities,
                           result.loads[i].probabilities.begin(), std::plus<>());
    result.loads[i].z_loss += rank_.model().loads()[i].z_loss;
  }
}

double TrainingStep::reduce_micro_batch(double loss_sum) {
  reduced_.assign(1, loss_sum);
  for (const RouterLoad& load : rank_.model().loads()) {
    reduced_.insert(reduced_.end(), load.counts.begin(), load.counts.end());
    reduced_.insert(reduced_.end(), load.probabilities.begin(), load.probabilities.end());
    reduced_.push_back(load.z_loss);
  }
  const PhaseTimer timer(rank_.context().times, rank_.context().op.clock, Phase::exchange);
  all_reduce_sum(rank_.context().op, rank_.transport(), Team::world(rank_.transport()),
                 std::span(reduced_), {"micro-batch loads"});
  auto at = reduced_.begin() + 1;
  for (RouterLoad& load : rank_.model().loads()) {
    for (std::vector<double>* sums : {&load.counts, &load.probabilities}) {
      std::copy_n(at, sums->size(), sums->begin());
      at += static_cast<std::ptrdiff_t>(sums->size());
    }
    load.z_loss = *at++;
  }
  return reduced_.front();
}

}  // namespace cartesian
