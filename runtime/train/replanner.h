#pragma once
// Replanner: re-planning while training runs. Over a window of steps a sample of tokens' choices is
// taken; at its end rank 0 plans from them on a thread of its own, while training goes on. A plan
// that pays back is adopted portion by portion, one after each step; then the next window begins.
// Not thread-safe.

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "planner/cluster.h"
#include "planner/portioned_migration.h"
#include "runtime/config/config.h"
#include "runtime/model/model_rank.h"
#include "runtime/train/plan_counts.h"
#include "runtime/train/routing_sample.h"
#include "scheduler/stragglers.h"

namespace cartesian {

struct PlacementCosts;

/// What became of a window.
enum class ReplanOutcome : std::uint8_t {
  adopted,
  rejected,    ///< moving to the plan would not pay back in time
  not_needed,  ///< no plan was made: the window is as good as was promised
  failed,
};

/// What happened after a step.
struct ReplanNews {
  std::string message;            ///< for people; may be empty
  nlohmann::ordered_json record;  ///< for plans.jsonl; null: nothing happened
  bool moved = false;             ///< the placement is another
};

class Replanner {
 public:
  /// All but `config` must outlive it. `cluster`: of the job's topology. `slots`: of a rank in a
  /// layer. Does nothing in a job of one rank, or without experts.
  Replanner(const ReplanConfig& config, const TrainConfig& train, ModelRank& rank, Cluster cluster,
            int slots);
  /// Waits for the planner, which its time budget bounds.
  ~Replanner();
  Replanner(const Replanner&) = delete;
  Replanner& operator=(const Replanner&) = delete;

  /// Sees a chunk of training's tokens.
  void route(const RoutedChunk& chunk);
  /// Whether there is anything to place: experts, on more than one rank.
  bool able() const { return able_; }
  bool planning() const { return planning_; }  ///< the same on every rank
  /// The window ends with the next after_step(), or once a sixteenth of it is over, and is planned
  /// whatever was promised; if a plan is in the making or being adopted, the window after it; where
  /// no windows are looked at, one begins. To be called on every rank after the same step.
  void request() { requested_ = true; }
  /// On rank 0: who is slower than the others now. Plans give them less to do; a window that ends
  /// when there are others than at the last plan is planned whatever was promised.
  void set_stragglers(std::vector<Straggler> stragglers) { stragglers_ = std::move(stragglers); }
  /// Whether this rank, which is then rank 0, has heard of the planner: to be told to all.
  bool ready() const;
  /// After step number `step`; `ready`: whether any rank was. Collective.
  ReplanNews after_step(std::int64_t step, bool ready);

  const PlanCounts& counts() const { return counts_; }

 private:
  struct Planning;  ///< the thread, and what it hands over

  /// Whether there is a window.
  bool collects() const { return able_ && (when_ != "off" || requested_); }
  void begin_planning(bool asked);
  ReplanNews hear(std::int64_t step);
  void count(ReplanOutcome outcome);
  /// On rank 0.
  ReplanNews tell(std::int64_t step, const Planning& planning);
  ReplanNews move(std::int64_t step);

  std::string when_;
  std::int64_t every_;
  std::int64_t horizon_steps_;
  double load_cap_;
  double time_budget_s_;
  PortionLimits limits_;
  double tokens_per_step_;
  ModelRank& rank_;
  Cluster cluster_;
  int slots_;
  bool able_;
  RoutingSample sample_;
  std::int64_t steps_ = 0;  ///< of the window
  bool requested_ = false;
  bool planning_ = false;
  std::vector<Straggler> stragglers_;         ///< on rank 0
  std::vector<Straggler> planned_for_;        ///< likewise: at the last plan
  std::unique_ptr<Planning> thread_;          ///< on rank 0, while planning_
  std::unique_ptr<PlacementCosts> promised_;  ///< on rank 0: by the running placement
  std::optional<PortionedMigration> way_;     ///< while a plan is adopted
  PlanCounts counts_;
};

/// What plans are made for: the job's nodes, with the links of the file replan.topology or the
/// planner's defaults. Throws FileError, FormatError, or ConfigError if the file is of another job.
Cluster replan_cluster(FileSystem& files, const ReplanConfig& config, const Topology& topology);

}  // namespace cartesian
