#pragma once
// Evaluation: a model's loss on held-out windows, over all ranks, and the experts' loads there.

#include <vector>

#include "runtime/data/document_sources.h"
#include "runtime/data/token_windows.h"
#include "runtime/model/model_rank.h"

namespace cartesian {

/// The part of an evaluation that one source of the text makes up.
struct SourceLoss {
  double loss = 0;  ///< mean over its tokens; 0 without any
  std::int64_t tokens = 0;
};

struct EvaluationResult {
  double loss = 0;  ///< mean cross-entropy in nats per token
  std::int64_t tokens = 0;
  std::vector<SourceLoss> sources;  ///< as DocumentSources::names(); empty if none were given
  std::vector<RouterLoad> loads;    ///< [layer * groups + group]

  double perplexity() const;
};

/// Which windows of held-out data are evaluated: `count` of `total`, spread evenly; all if there
/// are no more.
std::int64_t evaluated_window(std::int64_t index, std::int64_t count, std::int64_t total);

/// The tokens of these windows, one after the other, as a model is given them.
std::vector<std::int32_t> evaluated_tokens(const TokenWindows& windows, std::int64_t count);

/// Evaluates `count` windows (at most all of them), and the loss of each of `sources`, if given: a
/// loss counts for the source of the token that was to be predicted. The result is the same on
/// every rank. Collective.
EvaluationResult evaluate(ModelRank& rank, const TokenWindows& windows, std::int64_t count,
                          const DocumentSources* sources = nullptr);

}  // namespace cartesian
