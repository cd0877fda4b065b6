#pragma once
// What a training run agrees on before it opens anything, and what a run that goes on must keep.

#include "base/placement.h"
#include "runtime/checkpoint/checkpoint_files.h"
#include "runtime/config/config.h"
#include "runtime/job.h"
#include "runtime/model/model_rank.h"

namespace cartesian {

/// `config`, once all ranks have the same; their waits then have its deadline. Collective.
Config prepare_config(Job& job, Config config);

/// Where experts live, as `config` says, if there is memory for it. Throws ConfigError, on every
/// rank alike, if there is not, or if ranks read different placements. Collective.
Placement agreed_placement(Job& job, const Config& config, const Topology& topology);

/// Throws ConfigError, which names `path`, if a run of `windows` sequences cannot go on from a
/// checkpoint with this state and see the data in the same order.
void check_resumed(const TrainerState& state, const TrainConfig& train, std::int64_t windows,
                   const Path& path);

}  // namespace cartesian
