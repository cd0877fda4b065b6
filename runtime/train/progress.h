#pragma once
// Progress: what a person watching a training run sees, on rank 0's standard output.

#include <cstdint>
#include <string>

#include "base/clock.h"
#include "runtime/config/config.h"

namespace cartesian {

struct ProgressReport {
  std::int64_t step = 0;  ///< steps done
  double loss = 0;
  double tokens_per_s = 0;
  double balancedness = 1;
  double exchange_share = 0;  ///< of the time, 0 to 1
};

class Progress {
 public:
  /// `enabled` on one rank only. `first_step` is where this process begins, for the time left.
  Progress(const RunConfig& config, const Clock& clock, std::int64_t first_step, std::int64_t steps,
           bool enabled);

  /// After every step: redraws the live line, or prints a plain line when one is due.
  void step(const ProgressReport& report);
  /// A line of its own, above the live line.
  void message(const std::string& text);

 private:
  enum class Style : std::uint8_t { off, line, plain };

  Style style_;
  const Clock& clock_;
  Seconds log_every_;
  std::int64_t first_step_;
  std::int64_t steps_;
  Seconds start_;
  Seconds next_;
  std::size_t drawn_ = 0;  ///< width of the live line on the screen
};

/// "1h02m", "3m20s" or "45s".
std::string format_duration(double seconds);
/// "950", "12.3k", "4.1M".
std::string format_count(double value);

}  // namespace cartesian
