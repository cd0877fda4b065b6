#pragma once
// What a rank tells of one training step, and the shape of the job that says how long its lists
// are.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cartesian {

/// What stays the same through a job.
struct JobShape {
  int ranks = 1;
  std::vector<int> node_of_rank;   ///< [ranks]
  std::vector<std::string> hosts;  ///< [ranks]
  int layers = 0;                  ///< with experts
  int groups = 0;                  ///< sub-layers of one of those
  int experts = 0;                 ///< of a sub-layer
  std::vector<std::string> phases;
  int ways = 4;  ///< of a choice's row in a step: out and back, forward and backward
                 ///< and, where backward does forward again, that

  std::size_t loads() const;           ///< layers * groups * experts
  std::size_t co_activations() const;  ///< layers * experts * experts
};

/// Of one rank. Seconds, bytes, rows and counts of this step; none is negative but for what says
/// so, and all are finite.
struct StepReport {
  std::int64_t step = 0;
  double loss = 0;  ///< of the job, as the next three; rank 0's counts; may be negative
  double gradient_norm = 0;
  double learning_rate = 0;
  std::int64_t checkpoint_step = -1;  ///< of the last checkpoint; -1 before the first
  double step_s = 0;
  double wait_s = 0;             ///< of step_s, for other ranks
  std::vector<double> phase_s;   ///< by JobShape::phases
  std::int64_t tokens = 0;       ///< whose home this rank is
  std::int64_t intra_bytes = 0;  ///< sent to ranks of the same node
  std::int64_t inter_bytes = 0;  ///< sent to other nodes
  std::int64_t intra_rows = 0;
  std::int64_t inter_rows = 0;
  std::int64_t pivots = 0;            ///< tokens with a pivot, over the layers
  std::int64_t pivot_hits = 0;        ///< of those, with a pivot that hosts an expert of B's choice
  std::vector<float> loads;           ///< [layers, groups, experts]: choices of this rank's tokens
  std::vector<float> co_activation;   ///< [layers, experts of A, experts of B], or empty
  std::vector<double> waits_by_peer;  ///< [ranks]: waited for each, or empty
  /// How plans of placements went since the process began, told by rank 0; others leave 0.
  std::int64_t plan_version = 0;  ///< of the placement in force; 0: the one it began with
  std::int64_t plans_adopted = 0;
  std::int64_t plans_rejected = 0;
  std::int64_t plans_failed = 0;
  std::int64_t migrated_bytes = 0;

  /// The message's payload, and back. Throws FormatError for what is cut short, too long, negative
  /// or not finite.
  std::string encode() const;
  static StepReport decode(std::string_view payload);
  bool operator==(const StepReport&) const = default;
};

/// What of `report` does not have the size that `shape` says; empty if all has.
std::string mismatch(const StepReport& report, const JobShape& shape);

}  // namespace cartesian
