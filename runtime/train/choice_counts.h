#pragma once
// ChoiceCounts: which experts this rank's own tokens chose in a step, for its step report. Not
// thread-safe.

#include <vector>

#include "runtime/model/rank_context.h"
#include "scheduler/step_report.h"

namespace cartesian {

class ChoiceCounts {
 public:
  explicit ChoiceCounts(const JobShape& shape);

  /// Forgets the step before. `pairs`: counts also which experts of A and B the same tokens choose,
  /// if there are both and their matrices are not too large to be sent.
  void begin_step(bool pairs);
  /// Counts one chunk of this rank's tokens.
  void route(const RoutedChunk& chunk);

  /// [layers, groups, experts].
  const std::vector<float>& loads() const { return loads_; }
  /// [layers, A, B]; empty if not counted.
  const std::vector<float>& pairs() const { return pairs_; }

 private:
  std::size_t groups_;
  std::size_t experts_;
  std::size_t pair_cells_;  ///< 0: never counted
  std::vector<float> loads_;
  std::vector<float> pairs_;
};

}  // namespace cartesian
