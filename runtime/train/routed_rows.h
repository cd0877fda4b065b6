#pragma once
// RoutedRows: what tokens chose, kept on the ranks where they are at home until it is wanted as a
// routing trace. Not thread-safe.

#include <map>
#include <utility>
#include <vector>

#include "base/routing_trace.h"
#include "comm/transport.h"
#include "runtime/model/model_config.h"
#include "runtime/model/rank_context.h"

namespace cartesian {

class RoutedRows {
 public:
  /// `speculative`: with what B's router would have chosen, which every chunk must have then.
  /// `config` is copied.
  RoutedRows(const ModelConfig& config, DType dtype, bool speculative);

  /// Of every chunk that is routed, as RankContext::on_route sees it, those rows that are wanted:
  /// `rows` ascend, and `numbers` of them are the tokens' order in the trace.
  void add(const RoutedChunk& chunk, std::span<const std::size_t> rows,
           std::span<const std::int64_t> numbers);
  /// On rank 0 all ranks' tokens, by number, elsewhere an empty trace; then all are forgotten.
  /// Without what only the caller knows (model, tokens_per_step, text), and without homes. `what`:
  /// in errors. Collective.
  RoutingTrace take(Transport& transport, const char* what);

 private:
  struct Rows {
    std::vector<std::int64_t> numbers;
    RoutingTrace::SubLayer values;
  };

  ModelConfig config_;
  DType dtype_;
  bool speculative_;
  std::map<std::pair<int, int>, Rows> rows_;  // by (block, group): on every rank the same ones
};

}  // namespace cartesian
