#include "runtime/train/agreed_placement.h"

#include <fmt/format.h>

#include <optional>

#include "base/error.h"
#include "base/hash.h"
#include "comm/collectives.h"
#include "runtime/model/model_memory.h"
#include "runtime/model/model_rank.h"
#include "runtime/train/environment.h"
#include "runtime/train/run_directory.h"

namespace cartesian {

namespace {

AgreedPlacement find_placement(Job& job, const Config& config, const Topology& topology,
                               bool resume) {
  const auto make = [&](const ParallelConfig& parallel) {
    return make_placement(job.files, config.model, parallel, topology);
  };
  const Path left = Path(config.run.dir) / kPlacementFile;
  if (!resume || !job.files.exists(left)) {
    return {.start = make(config.parallel), .note = {}};
  }
  ParallelConfig parallel = config.parallel;
  parallel.placement = left.string();
  try {
    return {.start = make(parallel),
            .note = fmt::format("experts are where {} has them", left.string())};
  } catch (const ConfigError& error) {
    return {.start = make(config.parallel),
            .note = fmt::format("experts are where parallel.placement = \"{}\" has them: {}",
                                config.parallel.placement, error.what())};
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
