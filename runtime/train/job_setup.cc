#include "runtime/train/job_setup.h"

#include <fmt/format.h>

#include <optional>

#include "base/error.h"
#include "base/hash.h"
#include "comm/collectives.h"
#include "runtime/model/flow_choice.h"
#include "runtime/model/model_memory.h"

namespace cartesian {

Config prepare_config(Job& job, Config config) {
  check_same_config(job.transport, config);
  job.transport.set_timeout(Seconds(config.comm.timeout_s));
  return config;
}

Placement agreed_placement(Job& job, const Config& config, const Topology& topology) {
  const int ranks_here = ranks_on_host(job.transport);
  std::optional<Placement> placement;
  agree(job.transport, {"placement"}, [&] {
    const double tokens = static_cast<double>(config.train.micro_batch_sequences) *
                          static_cast<double>(config.train.sequence_length);
    check_training_memory(config.model,
                          {.ranks = topology.ranks(),
                           .tokens = tokens,
                           .shard_optimizer = config.parallel.shard_optimizer},
                          ranks_here);
    placement = make_placement(job.files, config.model, config.parallel, topology);
  });
  check_same_contents(job.transport, "parallel.placement = \"" + config.parallel.placement + "\"",
                      hash_hex(hash_bytes(placement->to_json())));
  return *placement;
}

void check_resumed(const TrainerState& state, const TrainConfig& train, std::int64_t windows,
                   const Path& path) {
  const std::int64_t batch = state.step > 0 ? state.sequences / state.step : 0;
  if (state.seed != train.seed || state.sequences != state.step * train.batch_sequences) {
    throw ConfigError(fmt::format(
        "{}: train.seed = {} and train.batch_sequences = {} there; a run that is resumed keeps "
        "them, so that it sees the data in the same order",
        path.string(), state.seed, batch));
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
