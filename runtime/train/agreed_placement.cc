#include "runtime/train/agreed_placement.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/hash.h"
#include "comm/collectives.h"
#include "planner/portioned_migration.h"
#include "runtime/checkpoint/checkpoint_files.h"
#include "runtime/model/model_memory.h"
#include "runtime/model/model_rank.h"
#include "runtime/train/environment.h"
#include "runtime/train/run_directory.h"

namespace cartesian {

namespace {

/// None if that placement is not to be had any more.
int slots_of(const std::function<Placement(const ParallelConfig&)>& make,
             const ParallelConfig& parallel) {
  try {
    return most_slots(make(parallel));
  } catch (const Error&) {
    return 0;
  }
}

AgreedPlacement find_placement(Job& job, const Config& config, const Topology& topology,
                               bool resume) {
  const auto make = [&](const ParallelConfig& parallel) {
    return make_placement(job.files, config.model, parallel, topology);
  };
  const auto configured = [&](std::string note) {
    Placement start = make(config.parallel);
    const int slots = most_slots(start);
    return AgreedPlacement{.start = std::move(start), .slots = slots, .note = std::move(note)};
  };
  const Path run = config.run.dir;
  const Path left = run / kPlacementFile;
  if (!resume || !job.files.exists(left) ||
      complete_checkpoints(job.files, checkpoints_directory(run)).empty()) {
    return configured({});
  }
  ParallelConfig parallel = config.parallel;
  parallel.placement = left.string();
  try {
    Placement start = make(parallel);
    const int slots = std::max(most_slots(start), slots_of(make, config.parallel));
    return {.start = std::move(start),
            .slots = slots,
            .note = fmt::format("experts are where {} has them", left.string())};
  } catch (const ConfigError& error) {
    return configured(fmt::format("experts are where parallel.placement = \"{}\" has them: {}",
                                  config.parallel.placement, error.what()));
  }
}

}  // namespace

AgreedPlacement agreed_placement(Job& job, const Config& config, const Topology& topology,
                                 bool resume) {
  const int ranks_here = ranks_on_host(job.transport);
  std::optional<AgreedPlacement> placement;
  agree(job.transport, {"placement"}, [&] {
    const double tokens = static_cast<double>(config.train.micro_batch_sequences) *
                          static_cast<double>(config.train.sequence_length);
    check_training_memory(config.model,
                          {.ranks = topology.ranks(),
                           .tokens = tokens,
                           .shard_optimizer = config.parallel.shard_optimizer},
                          ranks_here);
    placement = find_placement(job, config, topology, resume);
  });
  check_same_contents(job.transport, "parallel.placement = \"" + config.parallel.placement + "\"",
                      hash_hex(hash_bytes(placement->start.to_json())));
  return *placement;
}

}  // namespace cartesian
