#pragma once
// The whole model in float64, straight-line from the paper's equations (Su et al., arXiv
// 2410.16077) and LLaMA's: no blocking, no batching, no caches, nothing shared with the runtime but
// the sizes and tensor names. For tests at tiny sizes; one body serves values (double) and all
// derivatives (Var).

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "runtime/model/model_config.h"
#include "tests/support/tape.h"

namespace cartesian::test {

/// Tensors by their names in a checkpoint, row-major.
template <class T>
using ReferenceWeights = std::map<std::string, std::vector<T>>;

/// One sub-layer's routing of a micro-batch.
struct ReferenceRouting {
  std::vector<std::set<int>> chosen;  ///< [tokens]
  std::vector<double> counts;         ///< [experts]
  std::vector<double> probabilities;  ///< [experts], summed over tokens
};

template <class T>
struct ReferenceResult {
  std::vector<T> losses;  ///< [tokens] cross-entropy
  /// Summed over sub-layers: N * sum_i f_i P_i over the micro-batch, without the coefficient.
  T balance_loss = 0;
  /// [layer * sub-layers + sub-layer]: the mean over tokens of the squared log-sum-exp of the
  /// router's logits.
  std::vector<T> z_loss;
  std::vector<ReferenceRouting> routing;  ///< [layer * sub-layers + sub-layer]
  /// The smallest gap between a token's k-th and next probability, or probability + bias.
  double smallest_gap = std::numeric_limits<double>::infinity();
};

/// What a router's input is multiplied by: (block, sub-layer, token of the micro-batch, column).
using ReferenceJitter = std::function<double(std::int64_t, int, std::size_t, std::size_t)>;

/// One micro-batch.
struct ReferenceBatch {
  std::span<const std::int32_t> ids;      ///< [sequences * length]
  std::span<const std::int32_t> targets;  ///< likewise
  std::int64_t length = 0;
  std::span<const std::int32_t> document_starts = {};  ///< as in Batch, or empty
  ReferenceJitter jitter = {};                         ///< or empty
};

template <class T>
ReferenceResult<T> reference_model(const ModelConfig& config, const ReferenceWeights<T>& weights,
                                   const ReferenceBatch& batch);

}  // namespace cartesian::test
