#pragma once
// What a training run agrees on before it opens anything, and what a run that goes on must keep.

#include "runtime/checkpoint/checkpoint_files.h"
#include "runtime/config/config.h"
#include "runtime/job.h"

namespace cartesian {

/// `config`, once all ranks have the same; their waits then have its deadline. Collective.
Config prepare_config(Job& job, Config config);

/// Throws ConfigError, which names `path`, if a run of `windows` sequences cannot go on from a
/// checkpoint with this state and see the data in the same order.
void check_resumed(const TrainerState& state, const Config& config, std::int64_t windows,
                   const Path& path);

}  // namespace cartesian
