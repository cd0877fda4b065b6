#pragma once
// ControlPlane: a rank's part in the job's control plane while it trains: its agent, beside rank 0
// the coordinator, what of a step is reported, and commands that all ranks act on alike. Training
// never waits for it, and has the same bits with it and without.

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/placement.h"
#include "comm/timed_transport.h"
#include "runtime/config/config.h"
#include "runtime/job.h"
#include "runtime/train/choice_counts.h"
#include "runtime/train/command_desk.h"
#include "runtime/train/metrics_endpoint.h"
#include "runtime/train/plan_counts.h"
#include "runtime/train/step_record.h"
#include "scheduler/agent.h"
#include "scheduler/coordinator.h"

namespace cartesian {

/// Whether the configuration asks for a coordinator and agents.
bool wants_control_plane(const Config& config);
/// Of the ranks on `hosts`, as step reports tell of them.
JobShape job_shape(const Config& config, const Topology& topology, std::vector<std::string> hosts);

/// What a rank's report tells of a step that ended.
struct ReportedStep {
  std::int64_t step = 0;  ///< steps done
  const StepResult& result;
  const StepTimes& times;
  const StepTraffic& sent;  ///< by this rank
  const PhaseTimes& phases;
  const PlanCounts& plans;
  std::int64_t checkpoint_step = -1;  ///< of the last complete one; -1: none
};

/// Not thread-safe. Without a control plane every function does nothing.
class ControlPlane {
 public:
  /// The secret of the job, 64 hexadecimal digits, that a launcher may hand to rank 0; without it
  /// the job makes its own.
  static constexpr const char* kSecretVariable = "CARTESIAN_JOB_SECRET";

  struct Place {
    const Topology& topology;
    const Placement& placement;
    const TimedTransport& transport;              ///< of the training's steps
    std::function<void(const std::string&)> say;  ///< to the operator, on rank 0
  };
  /// Rank 0 makes the coordinator and tells all ranks its port and the secret over the data plane;
  /// every rank makes an agent. Throws ConfigError, on every rank alike, if rank 0 cannot listen at
  /// scheduler.address or metrics.address, or ranks of other hosts cannot reach the former. All
  /// must outlive it. Collective.
  ControlPlane(Job& job, const Config& config, const Place& place);

  /// Around the step number `step`; chunks of this rank's tokens in between.
  void begin_step(std::int64_t step);
  void route(const RoutedChunk& chunk);
  void end_step();
  /// After it: hands the report to the agent.
  void report(const ReportedStep& step);
  /// The placement in force from now on is plan number `version`'s.
  void moved(const Placement& placement, std::int64_t version);

  /// To act on a command, all ranks must have it before the same step. So each votes before step
  /// `next_step`, the votes are summed over the ranks, and agreed() gives what all have. That sum
  /// is the trainer's.
  using Vote = std::array<double, 3>;
  Vote vote(std::int64_t next_step);
  /// The same on every rank. Beside rank 0 it also looks for what the operator asks, sends anew
  /// what came too late for some rank, and tells of ranks that do not come to the coordinator and
  /// of stragglers that come and go.
  std::optional<Command> agreed(std::span<const double> votes, std::int64_t next_step);

  /// Runs `work`, the training, and says goodbye with its exit code, or with what it throws.
  int run(const std::function<int()>& work);

  /// Who is named now: on rank 0, as of the last agreed().
  const std::vector<Straggler>& stragglers() const { return told_; }

  /// Null but on rank 0; endpoint() also if nothing is to be served.
  Coordinator* coordinator() { return coordinator_.get(); }
  MetricsEndpoint* endpoint() { return endpoint_.get(); }

 private:
  void start_coordinator(Job& job, const Config& config, const Place& place,
                         const JobSecret& secret);
  /// Beside rank 0: which ranks never came to the coordinator, once; and what has become of
  /// stragglers since it was last told.
  void tell_of_standing(std::int64_t step);
  void tell_of_overdue(const std::vector<int>& ranks);
  void finish(int exit_code, const std::string& reason);

  const TimedTransport& transport_;
  std::function<void(const std::string&)> say_;
  std::int64_t tokens_;  ///< of a step, at home on this rank
  JobShape shape_;
  std::string address_;  ///< of the coordinator, or its host
  std::unique_ptr<Coordinator> coordinator_;
  std::unique_ptr<CommandDesk> desk_;
  std::unique_ptr<MetricsEndpoint> endpoint_;
  std::unique_ptr<Agent> agent_;  ///< null: there is no control plane
  std::optional<ChoiceCounts> counts_;
  std::vector<double> waits_;  ///< [ranks] before the step, then of it
  std::optional<Command> voted_;
  std::vector<Straggler> told_;  ///< of these, and that they are there
  bool told_overdue_ = false;
};

}  // namespace cartesian
