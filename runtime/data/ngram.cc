#include "runtime/data/ngram.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/error.h"

namespace cartesian {

namespace {

constexpr std::int64_t kBlock = std::int64_t{1} << 16;

}  // namespace

NgramModel::NgramModel(const TokenFile& data, std::int64_t vocabulary, std::int64_t max_tokens)
    : counts_(static_cast<std::size_t>(vocabulary)),
      contexts_(static_cast<std::size_t>(vocabulary)) {
  check(vocabulary >= 1 && max_tokens >= 2, "an n-gram model needs tokens");
  const std::int64_t tokens = data.tokens();
  if (tokens < 2) {
    throw ConfigError(fmt::format("{} has {} tokens, too few for a bigram model",
                                  token_data_path(data.prefix()).string(), tokens));
  }
  // Blocks overlap by one token, so that the pair between neighbouring blocks counts too.
  const std::int64_t blocks = (tokens - 2) / kBlock + 1;
  const std::int64_t used = std::min(blocks, std::max<std::int64_t>(1, max_tokens / kBlock));
  std::vector<std::int32_t> block;
  for (std::int64_t i = 0; i < used; ++i) {
    const std::int64_t begin = i * blocks / used * kBlock;
    block.resize(static_cast<std::size_t>(std::min(kBlock + 1, tokens - begin)));
    data.read(begin, block);
    if (begin == 0) {  // no pair ends with the very first token
      ++counts_[static_cast<std::size_t>(block[0])];
      ++total_;
    }
    count_block(block);
  }
  distinct_ = std::count_if(counts_.begin(), counts_.end(), [](auto count) { return count > 0; });
}

void NgramModel::count_block(std::span<const std::int32_t> tokens) {
  for (std::size_t i = 1; i < tokens.size(); ++i) {
    const std::int32_t previous = tokens[i - 1];
    const std::int32_t token = tokens[i];
    Context& context = contexts_[static_cast<std::size_t>(previous)];
    ++context.count;
    context.distinct += pairs_.add(previous, token) ? 1 : 0;
    ++counts_[static_cast<std::size_t>(token)];
  }
  total_ += static_cast<std::int64_t>(tokens.size()) - 1;
}

double NgramModel::unigram(std::int32_t token) const {
  const auto count = static_cast<double>(counts_.at(static_cast<std::size_t>(token)));
  const auto distinct = static_cast<double>(distinct_);
  return (count + distinct / static_cast<double>(counts_.size())) /
         (static_cast<double>(total_) + distinct);
}

double NgramModel::bigram(std::int32_t previous, std::int32_t token) const {
  const Context& context = contexts_.at(static_cast<std::size_t>(previous));
  if (context.count == 0) {
    return unigram(token);
  }
  const auto count = static_cast<double>(pairs_.count(previous, token));
  const auto distinct = static_cast<double>(context.distinct);
  return (count + distinct * unigram(token)) / (static_cast<double>(context.count) + distinct);
}

void NgramLoss::add(std::span<const std::int32_t> ids, std::span<const std::int32_t> targets) {
  check(ids.size() == targets.size(), "every target has a token before it");
  for (std::size_t i = 0; i < targets.size(); ++i) {
    unigram_ -= std::log(model_.unigram(targets[i]));
    bigram_ -= std::log(model_.bigram(ids[i], targets[i]));
  }
  targets_ += static_cast<std::int64_t>(targets.size());
}

double NgramLoss::unigram() const {
  check(targets_ > 0, "a mean over no targets");
  return unigram_ / static_cast<double>(targets_);
}

double NgramLoss::bigram() const {
  check(targets_ > 0, "a mean over no targets");
  return bigram_ / static_cast<double>(targets_);
}

}  // namespace cartesian
