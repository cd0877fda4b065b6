#pragma once
// Unigram and bigram models of a token file: what a trained model must beat. Witten-Bell smoothing
// (Chen and Goodman, "An empirical study of smoothing techniques for language modeling", 1998,
// section 2.5), each model interpolated with the one below, the unigram with the uniform one:
//
//   p1(w)     = (c(w) + D / V) / (N + D)                      D distinct tokens among N, of V
//   p2(w | u) = (c(u, w) + D(u) p1(w)) / (c(u) + D(u))        D(u) distinct tokens after u
//
// so that every token of the vocabulary has a probability above zero.

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/data/pair_counts.h"
#include "runtime/data/token_file.h"

namespace cartesian {

/// Immutable, thread-safe.
class NgramModel {
 public:
  /// Counting more than so many tokens changes a bigram model of bytes little. Distinct pairs take
  /// 21 to 43 bytes each, so where a vocabulary has more than kMaxPairs of them fewer tokens are
  /// counted.
  static constexpr std::int64_t kMaxTokens = std::int64_t{1} << 26;
  static constexpr std::int64_t kMaxPairs = std::int64_t{1} << 23;
  static constexpr std::int64_t max_tokens(std::int64_t vocabulary) {
    return vocabulary > kMaxPairs / vocabulary ? kMaxPairs : kMaxTokens;
  }

  /// Counts all tokens of `data`, or, if there are more, `max_tokens` in blocks spread evenly over
  /// it. Throws ConfigError, naming the file, if there are fewer than two. REQUIRES: data passes
  /// check_vocabulary(vocabulary).
  NgramModel(const TokenFile& data, std::int64_t vocabulary, std::int64_t max_tokens);
  NgramModel(const TokenFile& data, std::int64_t vocabulary)
      : NgramModel(data, vocabulary, max_tokens(vocabulary)) {}

  double unigram(std::int32_t token) const;
  double bigram(std::int32_t previous, std::int32_t token) const;

 private:
  struct Context {
    std::int64_t count = 0;     // c(u): how often it was followed
    std::int64_t distinct = 0;  // D(u)
  };
  void count_block(std::span<const std::int32_t> tokens);

  std::vector<std::int64_t> counts_;  // c(w)
  std::vector<Context> contexts_;
  PairCounts pairs_;  // c(u, w)
  std::int64_t total_ = 0;
  std::int64_t distinct_ = 0;
};

/// Sums of negative log likelihoods, over the same targets that a model is evaluated on.
class NgramLoss {
 public:
  /// `model` must outlive this.
  explicit NgramLoss(const NgramModel& model) : model_(model) {}

  /// Adds targets[i] after ids[i] (a window's or a batch's). REQUIRES: equal sizes, tokens within
  /// the vocabulary.
  void add(std::span<const std::int32_t> ids, std::span<const std::int32_t> targets);

  std::int64_t targets() const { return targets_; }
  /// Means in nats per target. REQUIRES: targets() > 0.
  double unigram() const;
  double bigram() const;

 private:
  const NgramModel& model_;
  std::int64_t targets_ = 0;
  double unigram_ = 0.0;
  double bigram_ = 0.0;
};

}  // namespace cartesian
