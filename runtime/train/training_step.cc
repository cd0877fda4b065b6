#include "runtime/train/training_step.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "comm/collectives.h"
#include "runtime/train/gradient_sync.h"

namespace cartesian {

SequenceRange sequences_of_rank(std::int64_t total, int rank, int ranks) {
  const std::int64_t first = total * rank / ranks;
  return {first, total * (rank + 1) / ranks - first};
}

TrainingStep::TrainingStep(const TrainConfig& config, ModelRank& rank, const SampleOrder& samples)
    : config_(config), rank_(rank), samples_(samples), optimizer_(config, rank.parameters()) {}

StepResult TrainingStep::run(std::int64_t step) {
  StepResult result;
  result.learning_rate = learning_rate(config_, step);
  result.loads.assign(rank_.model().loads().begin(), rank_.model().loads().end());
  for (RouterLoad& load : result.loads) {
    std::ranges::fill(load.counts, 0.0);
    std::ranges::fill(load.probabilities, 0.0);
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
    sync_gradients(context.op, rank_.transport(), parameters);
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
  const double weight =
      static_cast<double>(sequences) / static_cast<double>(config_.batch_sequences);
  const ArenaScope scope(context.op.scratch);
  const BalanceLoss balance =
      balance_loss(context.op.scratch, model.loads(), static_cast<double>(sequences * length),
                   config_.balance_loss * weight);
  model.backward(context, balance.dprobability);

  result.loss += loss_sum / step_tokens;
  result.balance_loss += balance.value * weight;
  for (std::size_t i = 0; i < result.loads.size(); ++i) {
    std::ranges::transform(result.loads[i].counts, model.loads()[i].counts,
                           result.loads[i].counts.begin(), std::plus<>());
    std::ranges::transform(result.loads[i].probabilities, model.loads()[i].probabilities,
                           result.loads[i].probabilities.begin(), std::plus<>());
  }
}

double TrainingStep::reduce_micro_batch(double loss_sum) {
  reduced_.assign(1, loss_sum);
  for (const RouterLoad& load : rank_.model().loads()) {
    reduced_.insert(reduced_.end(), load.counts.begin(), load.counts.end());
    reduced_.insert(reduced_.end(), load.probabilities.begin(), load.probabilities.end());
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
  }
  return reduced_.front();
}

}  // namespace cartesian
