#include "runtime/model/model_rank.h"

#include <omp.h>

#include "base/error.h"

namespace cartesian {

ModelRank::ModelRank(const ModelConfig& config, const Placement& placement,
                     const Topology& topology, Transport& transport, Metrics& metrics,
                     const Clock& clock, const ModelRankOptions& options)
    : placement_(placement),
      transport_(transport),
      options_(options),
      scratch_(allocator_),
      activations_(allocator_),
      op_{.threads = options.threads, .scratch = scratch_, .metrics = metrics, .clock = clock},
      exchange_(transport, topology, placement, options.exchange),
      context_{.op = op_,
               .activations = activations_,
               .exchange = exchange_,
               .times = times_,
               .dtype = options.dtype,
               .chunks = options.chunks,
               .recompute = options.recompute,
               .mask = {},
               .training = {},
               .on_route = {}},
      parameters_(options.shard_optimizer ? ParameterStore(transport.rank(), transport.size())
                                          : ParameterStore()),
      model_(config, placement, transport.rank(), parameters_) {
  omp_set_num_threads(options.threads);
}

ExchangeOptions exchange_options(const ExchangeConfig& config) {
  const std::optional<Flow> flow = parse_flow(config.flow);
  check(flow.has_value(), "the configuration names a flow");
  return {.flow = *flow,
          .pivot = config.pivot == "table"  ? PivotBy::table
                   : config.pivot == "gate" ? PivotBy::gate
                                            : PivotBy::speculative};
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
    return Placement::load(files, parallel.placement, shape);
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
