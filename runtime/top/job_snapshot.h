#pragma once
// JobSnapshot: one reading of a job's metrics (docs/metrics.md) as typed values.

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "runtime/top/metrics_text.h"
#include "runtime/top/placement_summary.h"

namespace cartesian {

/// A MoE layer and group, such as (0, "A").
using LayerGroup = std::pair<int, std::string>;

struct RankReading {
  std::string host;
  std::optional<double> step_s;
  std::optional<double> straggler_ratio;
  double compute_s = 0;  ///< counters
  double wait_s = 0;
  double waited_for_s = 0;
};

/// Of a layer and group.
struct ExpertsReading {
  std::optional<double> imbalance;
  std::optional<double> dead;
  std::map<int, double>
      tokens;  ///< counters by expert; empty unless metrics.experts names the layer
};

struct TrafficReading {
  double bytes = 0;  ///< counters
  double rows = 0;
};

/// A rank, or the link of a node, that the job names as a straggler.
struct StragglerReading {
  std::string host;
  double factor = 0;  ///< how many times slower than the others
};

/// What the job does not tell, or tells as no finite number, has no value or is absent.
struct JobSnapshot {
  Seconds at{0};       ///< by the reader's clock
  std::string source;  ///< whom it is from: another one has other counters

  std::string version;
  std::optional<double> ranks, nodes, step, step_age_s, loss, gradient_norm, learning_rate;
  std::optional<double> checkpoint_step, copies_per_token, dedup_factor;
  std::map<std::string, double> ranks_by_health;
  std::map<int, double> rank_imbalance;  ///< by layer
  std::map<int, double> colocation;      ///< by layer

  double reports = 0;  ///< counters, as all below
  double tokens = 0;
  double step_count = 0;  ///< of step_seconds
  double step_s = 0;
  double exposed_s = 0;
  double pivots = 0;
  double pivot_hits = 0;
  std::vector<std::pair<std::string, double>> phase_s;  ///< in the job's order
  std::map<std::string, TrafficReading> traffic;        ///< by scope

  std::optional<double> plan_version;
  std::map<std::string, double> plans;  ///< by outcome
  double migrated_bytes = 0;
  std::optional<PlacementSummary> placement;

  std::map<LayerGroup, ExpertsReading> experts;
  std::map<int, RankReading> by_rank;
  std::map<int, StragglerReading> slow_ranks;  ///< by rank
  std::map<int, StragglerReading> slow_links;  ///< by node
};

/// Of samples, without `at`, `source` and `placement`. Its step is known: throws FormatError,
/// naming `source`, if the samples are not those of a job.
JobSnapshot take_snapshot(std::span<const MetricSample> samples, const std::string& source);

/// Whether `next` does not go on from `last`: another source, an earlier step, or a counter that
/// has fallen.
bool began_anew(const JobSnapshot& last, const JobSnapshot& next);

}  // namespace cartesian
