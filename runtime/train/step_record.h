#pragma once
// A step's line of metrics.jsonl.

#include <array>
#include <nlohmann/json_fwd.hpp>

#include "runtime/model/model_rank.h"
#include "runtime/train/progress.h"
#include "runtime/train/training_step.h"

namespace cartesian {

struct StepTimes {
  Seconds duration{};
  Seconds waited{};  ///< for other ranks' messages
};

/// To other ranks of the node and to other nodes, as transports and exchanges count it.
struct StepTraffic {
  double intra_bytes = 0;  ///< of all messages
  double inter_bytes = 0;
  double intra_rows = 0;  ///< of tokens, there and back, in forward and backward
  double inter_rows = 0;
  double pivots = 0;      ///< tokens at their pivots
  double pivot_hits = 0;  ///< those with an expert of B on the pivot's node
  /// Between nodes in forward, of some tokens (PivotTally): as they went, and as an oracle sends.
  double pivot_rows = 0;
  double oracle_rows = 0;
};
using TrafficSums = std::array<double, sizeof(StepTraffic) / sizeof(double)>;  ///< in that order
/// What this rank has sent since its start.
StepTraffic traffic_so_far(Metrics& metrics);

/// As docs/formats.md describes it. `sent`: by all ranks.
nlohmann::ordered_json step_record(const ProgressReport& report, const StepResult& result,
                                   const StepTimes& times, const StepTraffic& sent,
                                   ModelRank& rank);

}  // namespace cartesian
