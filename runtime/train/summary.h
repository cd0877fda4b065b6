#pragma once
// Summary: how a finished run compares with the simplest models of the same tokens.

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "runtime/config/config.h"
#include "runtime/data/token_windows.h"
#include "runtime/train/evaluation.h"

namespace cartesian {

struct Summary {
  double perplexity = 0;
  double unigram_perplexity =
      0;  ///< of the training tokens' unigram model, on the same held-out tokens
  double bigram_perplexity = 0;
  std::int64_t tokens = 0;  ///< held-out tokens evaluated
  std::int64_t experts = 0;
  std::int64_t dead_experts = 0;  ///< no held-out token chose them
  double balancedness = 1;
  std::string checkpoint;
};

/// Counts the n-grams of `train` and evaluates them on the windows that `evaluation` comes from.
Summary summarize(const TokenFile& train, const TokenWindows& valid, const Config& config,
                  const EvaluationResult& evaluation, const Path& checkpoint);

nlohmann::ordered_json to_json(const Summary& summary);
/// Lines for a person.
std::string to_text(const Summary& summary);

}  // namespace cartesian
