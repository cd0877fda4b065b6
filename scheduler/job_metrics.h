#pragma once
// JobMetrics: the step reports of a job as Prometheus metrics, which docs/metrics.md lists.
// Counters are sums since it began; gauges are over the last few steps.

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/metrics.h"
#include "base/placement.h"
#include "scheduler/job_state.h"
#include "scheduler/report_window.h"
#include "scheduler/step_report.h"
#include "scheduler/step_window.h"
#include "scheduler/stragglers.h"

namespace prometheus {
struct MetricFamily;
}

namespace cartesian {

struct JobMetricsOptions {
  std::string experts = "none";  ///< MoE layers whose experts have series: none, all, or "0,3"
  int window_steps = 10;         ///< that gauges are over

  static constexpr int kMostWindowSteps = 10'000;
  static constexpr int kMostNodesInPairs = 16;  ///< of a job whose pairs of nodes have series
};

/// Layers that metrics.experts asks for, ascending. Throws ConfigError naming the key.
std::vector<int> expert_layers(std::string_view text, int layers);

/// What is known of the job beside its reports.
struct ControlCounts {
  std::array<int, kRankHealths> ranks{};  ///< by RankHealth
  std::int64_t commands = 0;
  std::int64_t commands_late = 0;
  std::int64_t troubles = 0;
  std::vector<Straggler> stragglers;  ///< that are named now
};

/// What the metrics of one reading are computed from.
struct JobFigures {
  /// What ReportWindow does not have of a rank.
  struct RankSteps {
    double last_s = -1;  ///< of its last step; negative before the first
    double compute_s = 0;
  };
  /// What rank 0 told last for all.
  struct Latest {
    bool known = false;
    double loss = 0;
    double gradient_norm = 0;
    double learning_rate = 0;
    std::int64_t checkpoint_step = -1;
    std::int64_t plan_version = 0;
    std::int64_t plans_adopted = 0;
    std::int64_t plans_rejected = 0;
    std::int64_t plans_failed = 0;
    std::int64_t migrated_bytes = 0;
  };

  JobFigures(JobShape shape, const JobMetricsOptions& options);

  JobShape shape;
  std::vector<int> expert_layers;
  std::shared_ptr<const Placement> placement;  ///< null: unknown
  std::int64_t step = -1;                      ///< the highest reported
  Seconds step_age{};                          ///< since it was first, or since the beginning
  StepSums window;
  ReportWindow totals;  ///< since the beginning
  std::vector<RankSteps> ranks;
  std::size_t paired_nodes;        ///< 0: too many
  std::vector<double> node_waits;  ///< [paired nodes, paired nodes]: of a row's for a column's
  Latest latest;
  Histogram step_s;
};

/// All families, also those that have no value yet.
std::vector<prometheus::MetricFamily> families(const JobFigures& figures,
                                               const ControlCounts& counts);

/// Not thread-safe.
class JobMetrics {
 public:
  /// `clock` must outlive it. Throws ConfigError naming metrics.experts or metrics.window_steps.
  JobMetrics(JobShape shape, const JobMetricsOptions& options, const Clock& clock);

  /// REQUIRES: `report` is of the shape and was not added before.
  void add(int rank, const StepReport& report);
  /// The placement from now on; null: unknown. REQUIRES: its layers, groups, experts and ranks are
  /// the shape's.
  void set_placement(std::shared_ptr<const Placement> placement);

  /// A copy, as of now.
  JobFigures figures() const;
  /// The highest step reported, or -1, and the time since it was first, or since the beginning.
  std::int64_t step() const { return figures_.step; }
  Seconds step_age() const { return clock_.now() - step_since_; }

 private:
  const Clock& clock_;
  StepWindow window_;
  Seconds step_since_;
  JobFigures figures_;  // but for its window and the age of its step
};

}  // namespace cartesian
