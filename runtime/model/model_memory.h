#pragma once
// What a model needs of a rank's memory. Refuses, before anything is allocated, what cannot fit:
// otherwise the kernel would end the process, or another one, without a word.

#include <cstddef>

#include "runtime/model/model_config.h"

namespace cartesian {

/// Throws ConfigError if `ranks_here` ranks of this host cannot have so many bytes each. The
/// sentence says that `what` needs them, and that `keys` be made smaller.
void require_memory(double bytes, int ranks_here, const char* what, const char* keys);

/// Bytes that each of `ranks` ranks holds at the least: its share of the experts, all of the rest,
/// each with its gradient and AdamW's moments in float32; of the moments of the rest its share if
/// these are sharded. A double, so that no size overflows.
double least_model_bytes(const ModelConfig& config, int ranks, bool shard_optimizer = false);

/// Throws ConfigError if least_model_bytes() of the `ranks_here` that share this host exceed its
/// memory, or what this process's control group may use of it.
void check_model_memory(const ModelConfig& config, int ranks, int ranks_here);
/// The same for training, with the residual stream that it keeps for backward.
struct TrainingNeeds {
  int ranks = 1;
  double tokens = 0;  ///< of a micro-batch over all ranks
  bool shard_optimizer = false;
};
void check_training_memory(const ModelConfig& config, const TrainingNeeds& needs, int ranks_here);

/// What a rank's memory goes to while training, in bytes: an estimate, for planning.
struct RankMemory {
  double parameters = 0;   ///< weights, gradients and two moments, float32
  double packed = 0;       ///< the weights once more, as the products want them
  double activations = 0;  ///< of one micro-batch, one block's backward and a slice of logits
  double total() const { return parameters + packed + activations; }
};
struct MemoryPlan {
  int ranks = 1;
  int expert_ranks = 1;     ///< over which one copy of the experts is spread, evenly
  double tokens = 0;        ///< of a micro-batch at home on the rank
  std::size_t element = 4;  ///< size of an activation
  bool recompute = false;   ///< see RankContext
  bool shard_optimizer = false;
  int jittered = 0;  ///< sub-layers of a MoE layer with router jitter
  double rails = 0;  ///< on other nodes, of a token in a sub-layer: rows that it leaves there
};
/// With tokens that visit experts evenly, as many as they may: with top-p routing that is the
/// number an untrained router, whose probabilities are all alike, takes.
RankMemory estimate_memory(const ModelConfig& config, const MemoryPlan& plan);

}  // namespace cartesian
