#pragma once
// PivotTally: how well pivots are chosen: the rows that tokens send between nodes, and those that
// they would send if B's choices had been known at home.

#include <cstdint>
#include <vector>

#include "base/itinerary.h"
#include "base/metrics.h"
#include "runtime/model/rank_context.h"

namespace cartesian {

/// Counts cartesian_pivot_rows_total{pivot="chosen|oracle"}, of forward, of one token in `every` by
/// the token's number. Not thread-safe.
class PivotTally {
 public:
  static constexpr std::int64_t kEvery = 8;

  /// All but `metrics` must outlive it, and counters are metrics'. `flow`: the exchange's; nothing
  /// is counted unless tokens have pivots in it.
  PivotTally(const Placement& placement, const Topology& topology, Flow flow, Metrics& metrics,
             std::int64_t every = kEvery);

  /// Counts one chunk of this rank's tokens.
  void route(const RoutedChunk& chunk);

 private:
  /// Rows between nodes of a token that is routed for B at `pivot`.
  double rows(const TokenChoices& a, std::span<const std::int32_t> b, int pivot);

  const Placement& placement_;
  const Topology& topology_;
  bool counts_;
  std::int64_t every_;
  Counter& chosen_;
  Counter& oracle_;
  std::vector<std::int32_t> a_ranks_, b_ranks_;  // of the token
};

}  // namespace cartesian
