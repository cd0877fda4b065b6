#include "runtime/top/live_view.h"

#include <fmt/format.h>

#include <utility>

#include "runtime/top/terminal.h"
#include "runtime/train/progress.h"

namespace cartesian {

LiveView::LiveView(ScreenContext context, const Clock& clock)
    : context_(std::move(context)), clock_(clock) {}

bool LiveView::take(Scrape scrape) {
  if (auto* snapshot = std::get_if<JobSnapshot>(&scrape)) {
    trouble_.clear();
    history_.add(std::move(*snapshot));
  } else if (const auto* failed = std::get_if<ScrapeFailed>(&scrape)) {
    trouble_ = failed->why;
  }
  return !std::holds_alternative<JobEnded>(scrape);
}

std::vector<std::string> LiveView::lines(const ScreenSize& size, bool colour) const {
  ScreenContext context = context_;
  if (!trouble_.empty()) {
    const Seconds age = clock_.now() - history_.readings().back().at;
    context.trouble = fmt::format("nothing new for {}: {}", format_duration(age.count()), trouble_);
  }
  return top_screen(make_job_view(history_), context, size, colour);
}

LiveResult show_live(LiveView& view, MetricsSource& source, const LiveOptions& options) {
  constexpr Seconds kRedraw{1};  // ages grow while nothing comes
  constexpr ScreenSize kUnknown{.width = 80, .height = 24};
  Terminal terminal;
  ScrapeLoop loop(source, options.interval);
  while (true) {
    terminal.show(view.lines(terminal_size().value_or(kUnknown), options.colour));
    switch (terminal.wait(loop.ready_fd(), kRedraw)) {
      case TerminalEvent::ready:
        for (Scrape& scrape : loop.take()) {
          if (!view.take(std::move(scrape))) {
            return {.end = LiveEnd::job_ended};
          }
        }
        break;
      case TerminalEvent::key:
        if (terminal.key() == 'q' || terminal.key() == 'Q') {
          return {};
        }
        break;
      case TerminalEvent::stopped:
        return {.signal = terminal.signal()};
      case TerminalEvent::none:
      case TerminalEvent::resized:
        break;
    }
  }
}

}  // namespace cartesian
