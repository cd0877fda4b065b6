#include "runtime/train/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <system_error>

#include "base/file_system.h"
#include "comm/mpi_transport.h"

namespace cartesian {

namespace {

constexpr Seconds kRedrawEvery{0.2};

/// Whether a person's terminal shows what this process prints. mpirun gives its ranks a
/// pseudo-terminal whatever it does with their output, so under a launcher it is the parent's
/// output that counts, where it can be seen.
bool shown_on_terminal() {
  if (isatty(STDOUT_FILENO) != 1) {
    return false;
  }
  if (!launched_by_mpi()) {
    return true;
  }
  std::error_code error;
  const Path output = std::filesystem::read_symlink(fmt::format("/proc/{}/fd/1", getppid()), error);
  return !error &&
         (output.string().starts_with("/dev/pts/") || output.string().starts_with("/dev/tty"));
}

}  // namespace

std::string format_duration(double seconds) {
  const auto total = static_cast<std::int64_t>(std::llround(std::max(0.0, std::min(seconds, 1e9))));
  if (total >= 3600) {
    return fmt::format("{}h{:02}m", total / 3600, total % 3600 / 60);
  }
  return total >= 60 ? fmt::format("{}m{:02}s", total / 60, total % 60) : fmt::format("{}s", total);
}

std::string format_count(double value) {
  if (value >= 1e6) {
    return fmt::format("{:.1f}M", value / 1e6);
  }
  return value >= 1e3 ? fmt::format("{:.1f}k", value / 1e3) : fmt::format("{:.0f}", value);
}

Progress::Progress(const RunConfig& config, const Clock& clock, std::int64_t first_step,
                   std::int64_t steps, bool enabled)
    : style_(Style::plain),
      clock_(clock),
      log_every_(config.log_every_s),
      first_step_(first_step),
      steps_(steps),
      start_(clock.now()),
      next_(start_) {
  if (!enabled || config.progress == "off") {
    style_ = Style::off;
  } else if (config.progress == "line" || (config.progress == "auto" && shown_on_terminal())) {
    style_ = Style::line;
  }
}

void Progress::step(const ProgressReport& report) {
  const bool last = report.step == steps_;
  if (style_ == Style::off || (clock_.now() < next_ && !last)) {
    return;
  }
  next_ = clock_.now() + (style_ == Style::line ? kRedrawEvery : log_every_);
  const double per_step = (clock_.now() - start_).count() /
                          static_cast<double>(std::max<std::int64_t>(1, report.step - first_step_));
  const std::string text = fmt::format(
      "step {}/{}  loss {:.4f}  {} tokens/s  eta {}  balancedness {:.2f}  exchange {:.0f}%",
      report.step, steps_, report.loss, format_count(report.tokens_per_s),
      format_duration(per_step * static_cast<double>(steps_ - report.step)), report.balancedness,
      100 * report.exchange_share);
  if (style_ == Style::plain) {
    fmt::print("{}\n", text);
  } else {
    fmt::print("\r{:<{}}", text, drawn_);
    drawn_ = text.size();
  }
  std::fflush(stdout);
}

void Progress::message(const std::string& text) {
  if (style_ == Style::off) {
    return;
  }
  if (drawn_ > 0) {
    fmt::print("\r{:<{}}\r", "", drawn_);
    drawn_ = 0;
  }
  fmt::print("{}\n", text);
  std::fflush(stdout);
}

}  // namespace cartesian
