#pragma once
// A step's line of metrics.jsonl.

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
struct Traffic {
  double intra_bytes = 0;  ///< of all messages
  double inter_bytes = 0;
  double intra_rows = 0;  ///< of tokens, there and back, in forward and backward
  double inter_rows = 0;
};
/// What this rank has sent since its start.
Traffic traffic_so_far(Metrics& metrics);

/// As docs/formats.md describes it. `sent`: by all ranks.
nlohmann::ordered_json step_record(const ProgressReport& report, const StepResult& result,
                                   const StepTimes& times, const Traffic& sent, ModelRank& rank);

}  // namespace cartesian
