#pragma once
// Generation: a model continues a sequence, one token at a time.

#include <cstdint>
#include <functional>
#include <span>

#include "runtime/model/model_rank.h"

namespace cartesian {

struct GenerateOptions {
  std::int64_t tokens = 256;  ///< at most
  double temperature = 0.8;   ///< 0: always the most probable
  std::int64_t top_k = 40;    ///< choose among the k most probable; 0: among all
  std::uint64_t seed = 1;
};

/// Continues `prompt` (at least one token), calling `next` with each new id, until `options.tokens`
/// or `end`, the token that ends a document. The context is the last max_position_embeddings
/// tokens. The sequence lives on rank 0; every rank sees the same ids. Collective.
void generate(ModelRank& rank, std::span<const std::int32_t> prompt, std::int32_t end,
              const GenerateOptions& options, const std::function<void(std::int32_t)>& next);

/// Draws from softmax(logits / temperature) among the top_k; `uniform` in [0, 1). Ties go to the
/// lower id.
std::int32_t sample_token(std::span<const float> logits, double temperature, std::int64_t top_k,
                          double uniform);

}  // namespace cartesian
