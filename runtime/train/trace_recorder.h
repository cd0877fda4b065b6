#pragma once
// TraceRecorder: the routing of an evaluation, gathered from all ranks into one trace.

#include <map>
#include <vector>

#include "base/routing_trace.h"
#include "runtime/model/model_rank.h"

namespace cartesian {

/// While it lives, every forward of `rank` is recorded. Not thread-safe.
class TraceRecorder {
 public:
  /// `tokens` in all, on all ranks, numbered by the batches' first_token. Both must outlive this.
  TraceRecorder(ModelRank& rank, std::int64_t tokens);
  ~TraceRecorder();
  TraceRecorder(const TraceRecorder&) = delete;
  TraceRecorder& operator=(const TraceRecorder&) = delete;

  /// The whole trace on rank 0, an empty one elsewhere; without what only the caller knows (model,
  /// tokens_per_step, text), and without homes: where an evaluation has its tokens says nothing of
  /// training. Collective.
  RoutingTrace gather();

 private:
  void record(const RoutedChunk& chunk);

  ModelRank& rank_;
  std::int64_t tokens_;
  /// This rank's tokens, in the order in which they were routed, by (block, group).
  struct Rows {
    std::vector<std::int64_t> tokens;
    RoutingTrace::SubLayer values;
  };
  std::map<std::pair<int, int>, Rows> rows_;
};

}  // namespace cartesian
