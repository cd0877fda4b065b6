#pragma once
// RoutingSample: what some of training's tokens chose, as a routing trace for the planner. Not
// thread-safe.

#include "runtime/train/routed_rows.h"

namespace cartesian {

class RoutingSample {
 public:
  /// One token in `every` is taken, by its number in training: the same ones on any number of
  /// ranks. `config` is copied.
  RoutingSample(const ModelConfig& config, DType dtype, std::uint64_t seed, std::int64_t every);

  /// Takes what it wants of a chunk; `first_token` as in RouterTraining.
  void route(const RoutedChunk& chunk, std::int64_t first_token);
  /// As RoutedRows::take().
  RoutingTrace take(Transport& transport) { return rows_.take(transport, "routing sample"); }

 private:
  RoutedRows rows_;
  std::uint64_t key_;
  std::uint64_t every_;
};

}  // namespace cartesian
