#include "runtime/train/evaluation.h"

#include <algorithm>
#include <cmath>

#include "comm/collectives.h"
#include "runtime/train/training_step.h"

namespace cartesian {

namespace {

constexpr std::int64_t kTokensPerForward = 4096;  // of one rank: bounds memory

/// Sums losses and loads over all ranks, in place.
void reduce(ModelRank& rank, EvaluationResult& result) {
  std::vector<double> sums = {result.loss};
  for (const SourceLoss& source : result.sources) {
    sums.insert(sums.end(), {source.loss, static_cast<double>(source.tokens)});
  }
  for (const RouterLoad& load : result.loads) {
    sums.insert(sums.end(), load.counts.begin(), load.counts.end());
  }
  all_reduce_sum(rank.context().op, rank.transport(), Team::world(rank.transport()),
                 std::span(sums), {"evaluation"});
  result.loss = sums.front();
  auto at = sums.begin() + 1;
  for (SourceLoss& source : result.sources) {
    source.loss = *at++;
    source.tokens = static_cast<std::int64_t>(*at++);
  }
  for (RouterLoad& load : result.loads) {
    std::copy_n(at, load.counts.size(), load.counts.begin());
    at += static_cast<std::ptrdiff_t>(load.counts.size());
  }
}

/// losses[i] is that of predicting token `first` + i.
void add_by_source(const DocumentSources& sources, std::int64_t first, const Tensor& losses,
                   EvaluationResult& result) {
  for (std::int64_t i = 0; i < losses.rows(); ++i) {
    SourceLoss& source = result.sources[sources.source_of(first + i)];
    source.loss += losses.data<float>()[i];
    ++source.tokens;
  }
}

/// One forward's windows, as a model is given them.
class WindowBatch {
 public:
  WindowBatch(const TokenWindows& windows, bool document_starts)
      : windows_(windows), with_starts_(document_starts) {}

  /// `window_of(i)` is the window of the i-th of `count` sequences.
  template <class WindowOf>
  Batch read(std::int64_t count, std::int64_t first_token, const WindowOf& window_of) {
    const std::int64_t length = windows_.length();
    const auto size = static_cast<std::size_t>(length);
    ids_.resize(static_cast<std::size_t>(count * length));
    targets_.resize(ids_.size());
    starts_.resize(with_starts_ ? ids_.size() : 0);
    for (std::int64_t i = 0; i < count; ++i) {
      const std::size_t at = static_cast<std::size_t>(i) * size;
      windows_.read(window_of(i), std::span(ids_).subspan(at, size),
                    std::span(targets_).subspan(at, size));
      if (with_starts_) {
        windows_.read_document_starts(window_of(i), std::span(starts_).subspan(at, size));
      }
    }
    const Shape shape{count * length};
    return {.ids = Tensor(ids_.data(), shape),
            .targets = Tensor(targets_.data(), shape),
            .document_starts = with_starts_ ? Tensor(starts_.data(), shape) : Tensor(),
            .length = length,
            .first_token = first_token};
  }

 private:
  const TokenWindows& windows_;
  bool with_starts_;
  std::vector<std::int32_t> ids_;
  std::vector<std::int32_t> targets_;
  std::vector<std::int32_t> starts_;
};

}  // namespace

double EvaluationResult::perplexity() const { return std::exp(loss); }

std::int64_t evaluated_window(std::int64_t index, std::int64_t count, std::int64_t total) {
  return index * total / count;
}

std::vector<std::int32_t> evaluated_tokens(const TokenWindows& windows, std::int64_t count) {
  const auto length = static_cast<std::size_t>(windows.length());
  std::vector<std::int32_t> ids(static_cast<std::size_t>(count) * length);
  std::vector<std::int32_t> targets(length);
  for (std::int64_t i = 0; i < count; ++i) {
    windows.read(evaluated_window(i, count, windows.count()),
                 std::span(ids).subspan(static_cast<std::size_t>(i) * length, length), targets);
  }
  return ids;
}

EvaluationResult evaluate(ModelRank& rank, const TokenWindows& windows, std::int64_t count,
                          const DocumentSources* sources) {
  const std::int64_t length = windows.length();
  count = std::min(count, windows.count());
  const int ranks = rank.transport().size();
  // Every rank runs the same number of forwards, the last perhaps without tokens: its experts may
  // still be needed.
  const std::int64_t per_forward = std::max<std::int64_t>(1, kTokensPerForward / length) * ranks;
  EvaluationResult result;
  result.sources.resize(sources == nullptr ? 0 : sources->names().size());
  rank.model().clear_loads();
  WindowBatch batch(windows, rank.model().config().document_attention);
  for (std::int64_t begin = 0; begin < count; begin += per_forward) {
    const auto share =
        sequences_of_rank(std::min(per_forward, count - begin), rank.transport().rank(), ranks);
    const auto window_of = [&](std::int64_t i) {
      return evaluated_window(begin + share.first + i, count, windows.count());
    };
    const ArenaScope scope(rank.context().op.scratch);
    const Tensor losses = rank.context().op.scratch.tensor(DType::f32, {share.count * length});
    rank.model().evaluate(
        rank.context(), batch.read(share.count, (begin + share.first) * length, window_of), losses);
    for (const float loss : losses.span<float>()) {
      result.loss += loss;
    }
    if (sources != nullptr) {
      for (std::int64_t i = 0; i < share.count; ++i) {
        add_by_source(*sources, window_of(i) * length + 1, losses.slice(i * length, length),
                      result);
      }
    }
  }
  result.loads.assign(rank.model().loads().begin(), rank.model().loads().end());
  reduce(rank, result);
  result.tokens = count * length;
  result.loss /= static_cast<double>(std::max<std::int64_t>(1, result.tokens));
  for (SourceLoss& source : result.sources) {
    source.loss /= static_cast<double>(std::max<std::int64_t>(1, source.tokens));
  }
  return result;
}

}  // namespace cartesian
