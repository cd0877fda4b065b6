#pragma once
// Refuses, before anything is allocated, a model that cannot fit in this host's memory: otherwise
// the kernel would end the process, or another one, without a word.

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

}  // namespace cartesian
