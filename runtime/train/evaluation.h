#pragma once
// Evaluation: a model's loss on held-out windows, over all ranks, and the experts' loads there.

#include <vector>

#include "runtime/data/token_windows.h"
#include "runtime/model/model_rank.h"

namespace cartesian {

struct EvaluationResult {
  double loss = 0;  ///< mean cross-entropy in nats per token
  std::int64_t tokens = 0;
  std::vector<RouterLoad> loads;  ///< [layer * groups + group]

  double perplexity() const;
};

/// Which windows of held-out data are evaluated: `count` of `total`, spread evenly; all if there
/// are no more.
std::int64_t evaluated_window(std::int64_t index, std::int64_t count, std::int64_t total);

/// Evaluates `count` windows (at most all of them). The result is the same on every rank.
/// Collective.
EvaluationResult evaluate(ModelRank& rank, const TokenWindows& windows, std::int64_t count);

}  // namespace cartesian
