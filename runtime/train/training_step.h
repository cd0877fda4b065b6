#pragma once
// TrainingStep: one optimizer step on all ranks: micro-batches forward and backward, gradients
// summed, clipped, applied.

#include <vector>

#include "runtime/data/sample_order.h"
#include "runtime/model/model_rank.h"
#include "runtime/train/balance_loss.h"
#include "runtime/train/gradient_sync.h"
#include "runtime/train/optimizer.h"

namespace cartesian {

struct StepResult {
  double loss = 0;           ///< mean cross-entropy over the step's tokens
  double balance_loss = 0;   ///< mean over micro-batches, without the coefficient
  double z_loss = 0;         ///< mean over tokens, summed over sub-layers, without the coefficient
  double largest_bias = 0;   ///< largest absolute bias of the routers, after the step
  double gradient_norm = 0;  ///< before clipping
  double learning_rate = 0;
  std::vector<RouterLoad> loads;  ///< over the step, all ranks, [layer * groups + group]
};

/// Sequences [first, first + count) of `total` that are at home on `rank`.
struct SequenceRange {
  std::int64_t first = 0;
  std::int64_t count = 0;
};
SequenceRange sequences_of_rank(std::int64_t total, int rank, int ranks);

class TrainingStep {
 public:
  /// The arguments must outlive it.
  TrainingStep(const TrainConfig& config, ModelRank& rank, const SampleOrder& samples);

  /// Runs step `step`, counted from 0. Throws NumericError, on every rank alike and before the
  /// weights change, if loss or gradient is not finite. Collective; the result is the same on every
  /// rank.
  StepResult run(std::int64_t step);

 private:
  void run_micro_batch(std::int64_t first_sequence, std::int64_t step, StepResult& result);
  /// What the routers do in the micro-batch that begins with this sequence.
  RouterTraining router_training(std::int64_t first_sequence) const;
  /// The load-balancing loss of a micro-batch, its gradient with the coefficients.
  BalanceLoss balance(Arena& arena) const;
  /// Sums the micro-batch's loss and loads over all ranks; returns the loss sum.
  double reduce_micro_batch(double loss_sum);
  /// Adds the micro-batch's loads to the step's.
  void add_loads(StepResult& result) const;

  TrainConfig config_;
  ModelRank& rank_;
  const SampleOrder& samples_;
  Optimizer optimizer_;
  GradientSync gradients_;
  std::vector<std::int32_t> ids_;
  std::vector<std::int32_t> targets_;
  std::vector<std::int32_t> document_starts_;  ///< if attention stops at document boundaries
  std::vector<double> reduced_;
};

}  // namespace cartesian
