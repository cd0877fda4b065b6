#include "scheduler/step_window.h"

#include <algorithm>

#include "base/check.h"
#include "scheduler/add_lists.h"

namespace cartesian {

StepSums::StepSums(const JobShape& shape)
    : loads(shape.loads()),
      compute_s(static_cast<std::size_t>(shape.ranks)),
      reports(static_cast<std::size_t>(shape.ranks)) {}

void StepSums::add(const StepSums& other) {
  tokens += other.tokens;
  inter_rows += other.inter_rows;
  placed_rows += other.placed_rows;
  flat_rows += other.flat_rows;
  add_to(loads, other.loads);
  add_to(co_activation, other.co_activation);
  add_to(compute_s, other.compute_s);
  add_to(reports, other.reports);
}

StepWindow::StepWindow(const JobShape& shape, int steps) : zero_(shape) {
  check(steps >= 1, "a window has at least one step");
  slots_.assign(static_cast<std::size_t>(steps), Slot{-1, zero_});
}

bool StepWindow::within(std::int64_t step) const {
  return step >= 0 && step > last_ - static_cast<std::int64_t>(slots_.size());
}

void StepWindow::add(int rank, const StepReport& report, double flat_rows) {
  if (!within(report.step)) {
    return;
  }
  last_ = std::max(last_, report.step);
  Slot& slot = slots_[static_cast<std::size_t>(report.step) % slots_.size()];
  if (slot.step != report.step) {
    slot = Slot{report.step, zero_};
  }
  StepSums& sums = slot.sums;
  sums.tokens += static_cast<double>(report.tokens);
  sums.inter_rows += static_cast<double>(report.inter_rows);
  if (flat_rows >= 0) {
    sums.placed_rows += static_cast<double>(report.inter_rows);
    sums.flat_rows += flat_rows;
  }
  add_to(sums.loads, report.loads);
  add_to(sums.co_activation, report.co_activation);
  sums.compute_s[static_cast<std::size_t>(rank)] += std::max(0.0, report.step_s - report.wait_s);
  sums.reports[static_cast<std::size_t>(rank)] += 1;
}

StepSums StepWindow::sum() const {
  StepSums total = zero_;
  for (const Slot& slot : slots_) {
    if (within(slot.step)) {
      total.add(slot.sums);
    }
  }
  return total;
}

}  // namespace cartesian
