#pragma once
// Trainer: a training run from its first or last checkpointed step to its end: steps, validation,
// checkpoints, progress.

#include <memory>
#include <optional>
#include <string>

#include "comm/timed_transport.h"
#include "runtime/checkpoint/checkpoint_writer.h"
#include "runtime/config/config.h"
#include "runtime/job.h"
#include "runtime/model/model_rank.h"
#include "runtime/train/agreed_placement.h"
#include "runtime/train/chunk_choice.h"
#include "runtime/train/control_plane.h"
#include "runtime/train/evaluation.h"
#include "runtime/train/expert_log.h"
#include "runtime/train/pivot_tally.h"
#include "runtime/train/progress.h"
#include "runtime/train/replanner.h"
#include "runtime/train/run_directory.h"
#include "runtime/train/step_record.h"
#include "runtime/train/step_timeline.h"
#include "runtime/train/training_data.h"
#include "runtime/train/training_step.h"

namespace cartesian {

struct TrainOptions {
  bool resume = false;       ///< go on from the last checkpoint, if there is one
  std::int64_t stop_at = 0;  ///< stop with a checkpoint after this step; 0: at the end
};

class Trainer {
 public:
  /// Opens everything the run needs and loads the last checkpoint if asked to. Throws, on every
  /// rank alike, ConfigError, FormatError or FileError. Collective.
  Trainer(Job& job, Config config, const TrainOptions& options);

  /// Trains. Returns kExitOk at the end of the run, kExitStopped when a stop was asked for.
  /// Collective.
  int run();

  ControlPlane& control() { return *control_; }

 private:
  int train();
  /// Steps to the end of the run, or until a stop is asked for.
  void train_steps();
  void load_checkpoint(const Path& path);
  /// After step number `step_` was done: everything that happens between steps. Returns whether to
  /// stop.
  bool after_step(const StepResult& result, const StepTimes& times);
  /// Whether any rank wants to stop, what all have sent in the step and what this rank has, and
  /// what all are told to do now. Completes the checkpoint in progress if it is on disk.
  struct Agreement {
    bool stop = false;
    bool planned = false;  ///< rank 0's planner has ended
    StepTraffic sent;
    StepTraffic sent_here;
    std::optional<Command> command;
  };
  /// What this rank has sent since the last call.
  TrafficSums take_traffic();
  Agreement agree_on_step();
  void report_step(const StepResult& result, const StepTimes& times_of_step,
                   const StepTraffic& sent);
  /// Rank 0 writes timeline.json once it is complete. Collective.
  void end_timeline_step();
  /// Writes the experts' record if its interval has ended, or `now`. Collective.
  void report_experts(bool now);
  /// What re-planning does between two steps. Collective.
  void replan(bool planned);
  void validate();
  /// Before the last checkpoint, which no step follows: throws NumericError unless some sequences
  /// give a finite loss.
  void prove_weights();
  void require_finite(const EvaluationResult& result) const;
  void begin_checkpoint();
  /// Weights that have diverged must not replace those that had not: so a checkpoint is completed
  /// only after a step, a validation or prove_weights() gave a finite loss with its weights.
  void commit_checkpoint();
  void finish();
  /// Rank 0 writes report.html. That it cannot is said, and no reason for the run to fail.
  void write_report();

  TimedTransport transport_;
  Job job_;  ///< the caller's, with that transport
  StopScope stop_scope_;
  Config config_;
  TrainOptions options_;
  Topology topology_;
  AgreedPlacement placement_;
  RunDirectory directory_;
  TrainingData data_;
  std::unique_ptr<ModelRank> rank_;
  std::unique_ptr<TrainingStep> training_step_;
  std::optional<StepTimeline> timeline_;
  std::optional<ChunkChoice> chunks_;
  TrafficSums counted_{};  ///< by this rank, until take_traffic()
  ExpertLog expert_log_;
  std::optional<PivotTally> pivot_tally_;
  std::unique_ptr<Replanner> replanner_;
  std::unique_ptr<CheckpointWriter> writer_;
  std::unique_ptr<Progress> progress_;
  std::optional<ControlPlane> control_;
  std::optional<EvaluationResult> last_evaluation_;
  std::int64_t evaluated_at_ = -1;
  std::int64_t step_ = 0;           ///< steps done
  std::int64_t saved_at_ = -1;      ///< of the last checkpoint that was begun
  std::int64_t committed_at_ = -1;  ///< of the last that is complete
  Path last_checkpoint_;
  double first_loss_ = 0;
};

}  // namespace cartesian
