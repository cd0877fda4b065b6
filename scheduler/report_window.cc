#include "scheduler/report_window.h"

#include <algorithm>

#include "scheduler/add_lists.h"

namespace cartesian {

ReportWindow::ReportWindow(const JobShape& shape)
    : phase_s(shape.phases.size()),
      loads(shape.loads()),
      step_s(static_cast<std::size_t>(shape.ranks)),
      wait_s(static_cast<std::size_t>(shape.ranks)),
      waited_for_s(static_cast<std::size_t>(shape.ranks)) {}

void ReportWindow::add(int rank, const StepReport& report) {
  first_step = reports == 0 ? report.step : std::min(first_step, report.step);
  last_step = std::max(last_step, report.step);
  ++reports;
  tokens += static_cast<double>(report.tokens);
  intra_bytes += static_cast<double>(report.intra_bytes);
  inter_bytes += static_cast<double>(report.inter_bytes);
  intra_rows += static_cast<double>(report.intra_rows);
  inter_rows += static_cast<double>(report.inter_rows);
  pivots += static_cast<double>(report.pivots);
  pivot_hits += static_cast<double>(report.pivot_hits);
  add_to(phase_s, report.phase_s);
  add_to(loads, report.loads);
  add_to(co_activation, report.co_activation);
  step_s[static_cast<std::size_t>(rank)] += report.step_s;
  wait_s[static_cast<std::size_t>(rank)] += report.wait_s;
  add_to(waited_for_s, report.waits_by_peer);
}

}  // namespace cartesian
