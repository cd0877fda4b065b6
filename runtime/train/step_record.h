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

/// As docs/formats.md describes it.
nlohmann::ordered_json step_record(const ProgressReport& report, const StepResult& result,
                                   const StepTimes& times, ModelRank& rank);

}  // namespace cartesian
