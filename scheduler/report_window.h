#pragma once
// ReportWindow: the sums of the step reports of all ranks since a moment.

#include <cstdint>
#include <vector>

#include "scheduler/step_report.h"

namespace cartesian {

struct ReportWindow {
  explicit ReportWindow(const JobShape& shape);
  /// REQUIRES: the sizes of `report` are the shape's.
  void add(int rank, const StepReport& report);

  std::int64_t reports = 0;
  std::int64_t first_step = -1;
  std::int64_t last_step = -1;
  double tokens = 0;
  double intra_bytes = 0;
  double inter_bytes = 0;
  double intra_rows = 0;
  double inter_rows = 0;
  double pivots = 0;
  double pivot_hits = 0;
  std::vector<double> phase_s;        ///< [phases], over ranks
  std::vector<double> loads;          ///< [layers, groups, experts]
  std::vector<double> co_activation;  ///< [layers, A, B]; empty if no rank reported it
  std::vector<double> step_s;         ///< [ranks]
  std::vector<double> wait_s;         ///< [ranks]: that the rank waited
  std::vector<double> waited_for_s;   ///< [ranks]: that others waited for the rank
};

}  // namespace cartesian
