#pragma once
// Chunks of a rank's tokens, and the order in which they pass the stages of a MoE layer.

#include <cstdint>
#include <vector>

#include "base/tensor.h"
#include "comm/exchange_plan.h"

namespace cartesian {

/// The first row of chunk `index` of `count`: they are as even as can be, some perhaps empty.
inline std::int64_t chunk_bound(std::int64_t rows, std::size_t index, std::size_t count) {
  return rows * static_cast<std::int64_t>(index) / static_cast<std::int64_t>(count);
}

inline Tensor chunk_rows(const Tensor& rows, std::size_t index, std::size_t count) {
  const std::int64_t first = chunk_bound(rows.rows(), index, count);
  return rows.slice(first, chunk_bound(rows.rows(), index + 1, count) - first);
}

/// The tokens of a chunk whose pivot this rank is. REQUIRES: plan.to_pivots, after finish_spread().
inline std::vector<SourceToken> pivot_tokens(const ExchangePlan& plan) {
  std::vector<SourceToken> tokens;
  for (const std::int32_t rail : plan.target_rails) {
    tokens.push_back(plan.rails[static_cast<std::size_t>(rail)].source);
  }
  return tokens;
}

/// Calls run(stage, chunk) for every stage of every chunk, each chunk a stage behind the one before
/// it, so that while experts compute for one chunk the rows of the next come and the sums of the
/// last leave. The same order on every rank.
template <class Run>
void pipeline(std::size_t stages, std::size_t chunks, const Run& run) {
  for (std::size_t time = 0; time < stages + chunks - 1; ++time) {
    for (std::size_t chunk = 0; chunk < chunks && chunk <= time; ++chunk) {
      if (time - chunk < stages) {
        run(time - chunk, chunk);
      }
    }
  }
}

}  // namespace cartesian
