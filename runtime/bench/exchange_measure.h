#pragma once
// Measures exchange paths in turn, and holds what they made against closed forms.

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "comm/transport.h"
#include "runtime/bench/exchange_case.h"
#include "runtime/bench/exchange_path.h"

namespace cartesian {

/// Of all ranks; on rank 0.
struct PathReport {
  std::vector<BenchSeconds> repetitions;  ///< every part on its slowest rank
  std::vector<SentTraffic> sent;          ///< [ranks] in one step
  /// [ranks] what GroupMeter::bytes() says of a step; empty ones if nothing does.
  std::vector<std::vector<double>> sent_by_group;

  double median(BenchPhase phase) const;
  double least(BenchPhase phase) const;
  SentTraffic sum() const;
  /// What leaves the node that sends the most bytes to others.
  SentTraffic busiest_node(const Topology& topology) const;
};

/// The median of the paired repetitions' ratios, of `one` to `other`.
double median_ratio(const PathReport& one, const PathReport& other, BenchPhase phase);

/// Runs a step of each path in turn, `repeats` times after two to warm up; every step begins
/// together. On rank 0 a report for each path, elsewhere empty ones. Collective.
std::vector<PathReport> measure_paths(Transport& transport, const Clock& clock,
                                      std::span<ExchangePath* const> paths, int repeats);

/// Throws Error if what `path` made of this rank's tokens in its last step, outputs and gradients,
/// is not what the case says, up to rounding. `name` begins the sentence.
void check_results(const ExchangeCase& measured, const ExchangePath& path, int rank,
                   std::string_view name);
/// Throws Error unless the rows of a step are as many as the messages of the tokens' itineraries
/// (base/messages.h), there and back, in `flow`.
void check_rows(const ExchangeCase& measured, const SentTraffic& sent, Flow flow,
                std::string_view name);

}  // namespace cartesian
