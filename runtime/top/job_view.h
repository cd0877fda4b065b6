#pragma once
// JobView: what `cartesian top` shows of a job, from its last few readings.

#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "runtime/top/job_snapshot.h"

namespace cartesian {

/// The readings that rates are over: the last kReadings, or more where steps are slow, until two
/// steps have ended among them.
class JobHistory {
 public:
  static constexpr std::size_t kReadings = 10;
  static constexpr std::size_t kMostReadings = 300;

  /// A reading that does not go on from the last one, such as that of a job that came back from a
  /// checkpoint, is the first of a new window. REQUIRES: not older than the last;
  /// its step is known.
  void add(JobSnapshot snapshot);
  /// Oldest first.
  const std::deque<JobSnapshot>& readings() const { return readings_; }

 private:
  std::deque<JobSnapshot> readings_;
};

struct PhaseView {
  std::string name;
  double share = 0;   ///< of all phases
  double step_s = 0;  ///< seconds a rank and step
};

struct TrafficView {
  std::string scope;
  std::optional<double> bytes_per_s;
  std::optional<double> rows_per_s;
};

/// A layer and group.
struct ExpertsView {
  int layer = 0;
  std::string group;
  std::vector<double> loads;  ///< by expert; empty if the job does not tell
  std::optional<double> imbalance;
  std::optional<double> dead;
  std::optional<double> rank_imbalance;  ///< of the layer
  std::optional<double> colocation;      ///< of the layer
};

struct RankView {
  int rank = 0;
  std::string host;
  std::optional<double> straggler_ratio;
  std::optional<double> step_s;
  std::optional<double> compute_share;  ///< of its steps' seconds
  std::optional<double> wait_share;
  std::optional<double> waited_for_share;  ///< what others waited, over its own steps' seconds
};

struct JobView {
  JobSnapshot now;
  double window_s = 0;  ///< that rates are over; 0: there are none yet
  /// Whether a step ended in the window. If not, shares, loads and times of phases are those since
  /// the job began.
  bool moving = false;
  std::optional<double> tokens_per_s;
  std::optional<double> steps_per_s;
  std::optional<double> step_s;  ///< mean of ranks and steps
  std::optional<double> exposed_share;
  std::optional<double> pivot_hit_rate;
  std::vector<PhaseView> phases;
  std::vector<TrafficView> traffic;  ///< intra first
  std::vector<ExpertsView> experts;  ///< by layer and group
  std::vector<RankView> ranks;       ///< the slowest first
};

/// REQUIRES: history has a reading.
JobView make_job_view(const JobHistory& history);

}  // namespace cartesian
