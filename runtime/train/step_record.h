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

/// To other ranks of the node and to other nodes, as transports count them.
struct BytesSent {
  double intra = 0;
  double inter = 0;
};
/// By this rank, since its start.
BytesSent bytes_sent(Metrics& metrics);

/// As docs/formats.md describes it. `sent`: by all ranks.
nlohmann::ordered_json step_record(const ProgressReport& report, const StepResult& result,
                                   const StepTimes& times, const BytesSent& sent, ModelRank& rank);

}  // namespace cartesian
