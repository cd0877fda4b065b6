#pragma once
// ModelRank: one rank's model with all it needs to run: parameters, arenas, exchange, op context.
// Training, evaluation, generation and tests drive it. Not thread-safe: it belongs to the thread
// that made it.

#include <span>

#include "base/topology.h"
#include "runtime/config/config.h"
#include "runtime/model/language_model.h"

namespace cartesian {

struct ModelRankOptions {
  DType dtype = DType::f32;
  int chunks = 1;
  int threads = 1;
  bool recompute = false;  ///< see RankContext
  ExchangeOptions exchange = {};
  /// Keeps AdamW's moments of this rank's share of the dense part only; the same on every rank.
  bool shard_optimizer = false;
};

class ModelRank {
 public:
  /// Transport, topology, metrics and clock must outlive it.
  ModelRank(const ModelConfig& config, const Placement& placement, const Topology& topology,
            Transport& transport, Metrics& metrics, const Clock& clock,
            const ModelRankOptions& options);

  LanguageModel& model() { return model_; }
  ParameterStore& parameters() { return parameters_; }
  RankContext& context() { return context_; }
  Transport& transport() { return transport_; }
  /// The placement of now, always at the same address.
  const Placement& placement() const { return placement_; }
  const Topology& topology() const { return topology_; }

  /// Goes on with another placement of the same shape: experts that stay keep weights and both
  /// moments, those that come are received from migration_source(), and all is packed. References
  /// to this rank's parts stay valid; gradients become zero. REQUIRES: no step in progress.
  /// Meanwhile a rank holds one more copy of the weights and moments of those experts that it keeps
  /// or sends. Returns the bytes that this rank received. Collective. Throws CommError.
  std::int64_t adopt(const Placement& next);

  /// After every change of the weights.
  void pack() { model_.pack(op_, options_.dtype); }
  /// Bytes of both arenas, and how often they grew.
  std::size_t arena_bytes() const { return activations_.capacity() + scratch_.capacity(); }
  std::int64_t arena_growths() const { return activations_.growths() + scratch_.growths(); }

 private:
  Placement placement_;
  const Topology& topology_;
  Transport& transport_;
  ModelRankOptions options_;
  HostAllocator allocator_;
  Arena scratch_;
  Arena activations_;
  PhaseTimes times_;
  Context op_;
  Exchange exchange_;
  RankContext context_;
  ParameterStore parameters_;
  LanguageModel model_;
};

/// The placement that a configuration asks for ("linear", "local" or a file). Throws as
/// Placement::load() does.
Placement make_placement(FileSystem& files, const ModelConfig& model,
                         const ParallelConfig& parallel, const Topology& topology);

}  // namespace cartesian
