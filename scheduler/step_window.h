#pragma once
// StepWindow: sums over all ranks of the last few steps, step by step, from which gauges are
// computed.

#include <cstdint>
#include <vector>

#include "scheduler/step_report.h"

namespace cartesian {

/// Of one step or of several.
struct StepSums {
  explicit StepSums(const JobShape& shape);
  void add(const StepSums& other);

  double tokens = 0;
  double inter_rows = 0;
  double placed_rows = 0;             ///< of inter_rows, those of reports with flat_rows
  double flat_rows = 0;               ///< see load_statistics.h; of reports under a known placement
  std::vector<double> loads;          ///< [layers, groups, experts]
  std::vector<double> co_activation;  ///< [layers, A, B]; empty if no rank reported it
  std::vector<double> compute_s;      ///< [ranks]
  std::vector<double> reports;        ///< [ranks]
};

/// Holds [layers, experts, experts] doubles a step where co-activation is reported. Not
/// thread-safe.
class StepWindow {
 public:
  /// REQUIRES: steps >= 1.
  StepWindow(const JobShape& shape, int steps);

  /// Adds a rank's report; ignores it if its step is below the window, which ends at the highest
  /// step added. `flat_rows` is negative if no placement is known.
  void add(int rank, const StepReport& report, double flat_rows);
  StepSums sum() const;

 private:
  struct Slot {
    std::int64_t step = -1;
    StepSums sums;
  };
  bool within(std::int64_t step) const;

  StepSums zero_;
  std::vector<Slot> slots_;  // that of step s is s modulo their number
  std::int64_t last_ = -1;
};

}  // namespace cartesian
