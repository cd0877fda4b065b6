#pragma once
// LiveView: what `cartesian top` does between its first reading and the key that ends it.

#include <optional>
#include <string>

#include "runtime/top/job_view.h"
#include "runtime/top/scrape_loop.h"
#include "runtime/top/top_screen.h"

namespace cartesian {

/// The readings of a job, and the trouble that there is with having more.
class LiveView {
 public:
  /// `clock` must outlive it.
  LiveView(ScreenContext context, const Clock& clock);

  /// False if the job has ended.
  bool take(Scrape scrape);
  /// REQUIRES: a reading was taken.
  std::vector<std::string> lines(const ScreenSize& size, bool colour) const;

 private:
  ScreenContext context_;
  const Clock& clock_;
  JobHistory history_;
  std::string trouble_;
};

struct LiveOptions {
  Seconds interval{2};
  bool colour = true;
};

enum class LiveEnd : std::uint8_t { left, job_ended };
struct LiveResult {
  LiveEnd end = LiveEnd::left;
  int signal = 0;  ///< that ended it, or 0
};

/// Shows `view`, which has a reading, on the terminal until q, Ctrl-C, a signal or the end of the
/// job. The terminal is as it was when this returns or throws.
LiveResult show_live(LiveView& view, MetricsSource& source, const LiveOptions& options);

}  // namespace cartesian
