#pragma once
// What a model needs of a rank's memory. Refuses, before anything is allocated, what cannot fit:
// otherwise the kernel would end the process, or another one, without a word.

#include <cstddef>

#include "runtime/model/model_config.h"

namespace cartesian {

/// Bytes that each of `ranks` ranks holds at the least: its share of the experts, all of the rest,
/// each with its gradient and AdamW's moments in float32. A double, so that no size overflows.
double least_model_bytes(const ModelConfig& config, int ranks);

/// Throws ConfigError if least_model_bytes() of the `ranks_here` that share this host exceed its
/// memory, or what this process's control group may use of it.
void check_model_memory(const ModelConfig& config, int ranks, int ranks_here);
/// The same, with the residual stream that training keeps for backward: `tokens` of a micro-batch
/// over all ranks.
void check_training_memory(const ModelConfig& config, int ranks, int ranks_here, double tokens);

/// What a rank's memory goes to while training, in bytes: an estimate, for planning.
struct RankMemory {
  double parameters = 0;   ///< weights, gradients and two moments, float32
  double packed = 0;       ///< the weights once more, as the products want them
  double activations = 0;  ///< of one micro-batch, and of one block's backward
  double total() const { return parameters + packed + activations; }
};
/// With experts spread evenly over `expert_ranks` ranks, and `tokens` of a micro-batch at home on
/// the rank, each visiting the nominal number of experts, evenly. `element` is the size of an
/// activation.
RankMemory estimate_memory(const ModelConfig& config, int expert_ranks, double tokens,
                           std::size_t element);

}  // namespace cartesian
