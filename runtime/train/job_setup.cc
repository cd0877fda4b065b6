#include "runtime/train/job_setup.h"

#include <fmt/format.h>

#include "base/error.h"

namespace cartesian {

Config prepare_config(Job& job, Config config) {
  check_same_config(job.transport, config);
  job.transport.set_timeout(Seconds(config.comm.timeout_s));
  return config;
}

void check_resumed(const TrainerState& state, const Config& config, std::int64_t windows,
                   const Path& path) {
  const TrainConfig& train = config.train;
  const std::int64_t batch = state.step > 0 ? state.sequences / state.step : 0;
  if (state.seed != train.seed || state.sequences != state.step * train.batch_sequences) {
    throw ConfigError(fmt::format(
        "{}: train.seed = {} and train.batch_sequences = {} there; a run that is resumed keeps "
        "them, so that it sees the data in the same order",
        path.string(), state.seed, batch));
  }
  if (state.order != config.data.order) {
    throw ConfigError(
        fmt::format("{}: data.order = \"{}\" there, \"{}\" here; a run that is resumed keeps it, "
                    "so that it sees "
                    "the data in the same order",
                    path.string(), state.order, config.data.order));
  }
  if (state.sequence_length != train.sequence_length || state.windows != windows) {
    throw ConfigError(fmt::format(
        "{}: train.sequence_length = {} and {} sequences in data.train there, {} and "
        "{} here; a run "
        "that is resumed keeps them, so that it sees the data in the same order",
        path.string(), state.sequence_length, state.windows, train.sequence_length, windows));
  }
}

}  // namespace cartesian
