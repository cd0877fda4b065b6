#include "runtime/train/trace_recorder.h"

#include <algorithm>
#include <numeric>

namespace cartesian {

TraceRecorder::TraceRecorder(ModelRank& rank)
    : rank_(rank), rows_(rank.model().config(), rank.context().dtype, /*speculative=*/true) {
  rank_.context().speculate = true;
  rank_.context().on_route = [this](const RoutedChunk& chunk) { record(chunk); };
}

TraceRecorder::~TraceRecorder() {
  rank_.context().speculate = false;
  rank_.context().on_route = {};
}

void TraceRecorder::record(const RoutedChunk& chunk) {
  std::vector<std::size_t> rows(chunk.tokens.size());
  std::iota(rows.begin(), rows.end(), std::size_t{0});
  std::vector<std::int64_t> numbers(rows.size());
  std::ranges::transform(chunk.tokens, numbers.begin(), &SourceToken::token);
  rows_.add(chunk, rows, numbers);
}

}  // namespace cartesian
