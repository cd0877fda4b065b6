#include "runtime/train/summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "runtime/data/ngram.h"
#include "runtime/train/expert_load.h"

namespace cartesian {

Summary summarize(const TokenFile& train, const TokenWindows& valid, const Config& config,
                  const EvaluationResult& evaluation, const Path& checkpoint) {
  const NgramModel ngrams(train, config.model.vocab_size);
  NgramLoss losses(ngrams);
  const std::int64_t count = std::min(config.valid.sequences, valid.count());
  std::vector<std::int32_t> ids(static_cast<std::size_t>(valid.length()));
  std::vector<std::int32_t> targets(ids.size());
  for (std::int64_t i = 0; i < count; ++i) {
    valid.read(evaluated_window(i, count, valid.count()), ids, targets);
    losses.add(ids, targets);
  }
  std::int64_t experts = 0;
  for (const RouterLoad& load : evaluation.loads) {
    experts += static_cast<std::int64_t>(load.counts.size());
  }
  return {.perplexity = evaluation.perplexity(),
          .unigram_perplexity = std::exp(losses.unigram()),
          .bigram_perplexity = std::exp(losses.bigram()),
          .tokens = evaluation.tokens,
          .experts = experts,
          .dead_experts = dead_experts(evaluation.loads),
          .balancedness = mean_balancedness(evaluation.loads),
          .checkpoint = checkpoint.string()};
}

nlohmann::ordered_json to_json(const Summary& summary) {
  return {{"perplexity", summary.perplexity},
          {"unigram_perplexity", summary.unigram_perplexity},
          {"bigram_perplexity", summary.bigram_perplexity},
          {"tokens", summary.tokens},
          {"experts", summary.experts},
          {"dead_experts", summary.dead_experts},
          {"balancedness", summary.balancedness},
          {"checkpoint", summary.checkpoint}};
}

std::string to_text(const Summary& summary) {
  std::string text = fmt::format(
      "\nheld-out perplexity over {} tokens\n"
      "  this model   {:8.3f}\n"
      "  bigram       {:8.3f}\n"
      "  unigram      {:8.3f}\n",
      summary.tokens, summary.perplexity, summary.bigram_perplexity, summary.unigram_perplexity);
  if (summary.experts > 0) {
    text +=
        fmt::format("experts: {} of {} in use, balancedness {:.2f}\n",
                    summary.experts - summary.dead_experts, summary.experts, summary.balancedness);
  }
  return text + fmt::format("checkpoint: {}", summary.checkpoint);
}

}  // namespace cartesian
