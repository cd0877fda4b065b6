#pragma once
// TraceRecorder: the routing of an evaluation, gathered from all ranks into one trace.

#include "runtime/model/model_rank.h"
#include "runtime/train/routed_rows.h"

namespace cartesian {

/// While it lives, every forward of `rank` is recorded. Not thread-safe.
class TraceRecorder {
 public:
  /// Tokens are numbered by the batches' first_token. `rank` must outlive this.
  explicit TraceRecorder(ModelRank& rank);
  ~TraceRecorder();
  TraceRecorder(const TraceRecorder&) = delete;
  TraceRecorder& operator=(const TraceRecorder&) = delete;

  /// As RoutedRows::take(): where an evaluation has its tokens says nothing of training.
  RoutingTrace gather() { return rows_.take(rank_.transport(), "routing trace"); }

 private:
  void record(const RoutedChunk& chunk);

  ModelRank& rank_;
  RoutedRows rows_;
};

}  // namespace cartesian
