#include "runtime/model/model_rank.h"

#include <fmt/format.h>
#include <omp.h>

#include "base/error.h"
#include "runtime/model/expert_migration.h"

namespace cartesian {

ModelRank::ModelRank(const ModelConfig& config, const Placement& placement,
                     const Topology& topology, Transport& transport, Metrics& metrics,
                     const Clock& clock, const ModelRankOptions& options)
    : placement_(placement),
      topology_(topology),
      transport_(transport),
      options_(options),
      scratch_(allocator_),
      activations_(allocator_),
      op_{.threads = options.threads, .scratch = scratch_, .metrics = metrics, .clock = clock},
      exchange_(transport, topology, placement_, options.exchange),
      context_{.op = op_,
               .activations = activations_,
               .exchange = exchange_,
               .times = times_,
               .dtype = options.dtype,
               .chunks = options.chunks,
               .recompute = options.recompute,
               .mask = {},
               .training = {},
               .on_gradients = {},
               .on_route = {}},
      parameters_(options.shard_optimizer ? ParameterStore(transport.rank(), transport.size())
                                          : ParameterStore()),
      model_(config, placement_, transport.rank(), parameters_) {
  omp_set_num_threads(options.threads);
}

std::int64_t ModelRank::adopt(const Placement& next) {
  ExpertMigration migration(transport_, topology_, placement_, next, parameters_);
  placement_ = next;
  exchange_.placement_changed();
  model_.replace_experts(placement_, transport_.rank());
  migration.finish(parameters_);
  pack();
  return migration.received_bytes();
}

Placement make_placement(FileSystem& files, const ModelConfig& model,
                         const ParallelConfig& parallel, const Topology& topology) {
  const PlacementShape shape{
      .layers = static_cast<int>(model.moe_layers()),
      .groups = static_cast<int>(model.sub_layers),
      .experts = static_cast<int>(model.sub_layers == 0 ? 0 : model.num_experts),
      .ranks = topology.ranks()};
  if (parallel.placement == "local") {
    return Placement::local(shape, topology);
  }
  if (parallel.placement != "linear") {
    Placement placement = Placement::load(files, parallel.placement, shape);
    if (topology.nodes() == 1) {
      return placement.without_pivot_scores();
    }
    if (placement.score_nodes() > 0 && placement.score_nodes() != topology.nodes()) {
      throw ConfigError(
          fmt::format("{} has pivot scores of {} nodes, but this job has {}: plan for its topology",
                      parallel.placement, placement.score_nodes(), topology.nodes()));
    }
    return placement;
  }
  if (parallel.expert_ranks > topology.ranks()) {
    throw ConfigError("parallel.expert_ranks = " + std::to_string(parallel.expert_ranks) +
                      " is more than the " + std::to_string(topology.ranks()) +
                      " ranks of this job");
  }
  const auto ranks =
      parallel.expert_ranks == 0 ? topology.ranks() : static_cast<int>(parallel.expert_ranks);
  return Placement::linear(shape, ranks);
}

}  // namespace cartesian
