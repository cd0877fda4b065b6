#include "base/chrome_trace.h"

#include <fmt/format.h>

#include <cmath>
#include <iterator>

namespace cartesian {

namespace {
constexpr double kNanosecondsPerSecond = 1e9;
constexpr double kNanosecondsPerMicrosecond = 1e3;
}  // namespace

void ChromeTrace::name_process(int process, std::string_view name, int place) {
  metadata("process_name", process, 1, fmt::format(R"("name": "{}")", name));
  metadata("process_sort_index", process, 1, fmt::format(R"("sort_index": {})", place));
}

void ChromeTrace::name_thread(int process, int thread, std::string_view name, int place) {
  metadata("thread_name", process, thread, fmt::format(R"("name": "{}")", name));
  metadata("thread_sort_index", process, thread, fmt::format(R"("sort_index": {})", place));
}

void ChromeTrace::add(const Span& span) {
  begin_event();
  const auto start = std::llround(span.start_s * kNanosecondsPerSecond);
  const auto end = std::llround(span.end_s * kNanosecondsPerSecond);
  fmt::format_to(std::back_inserter(events_),
                 R"({{"ph": "X", "pid": {}, "tid": {}, "name": "{}", "cat": "{}", )"
                 R"("ts": {:.3f}, "dur": {:.3f}, "args": {{{}}}}})",
                 span.process, span.thread, span.name, span.category,
                 static_cast<double>(start) / kNanosecondsPerMicrosecond,
                 static_cast<double>(end - start) / kNanosecondsPerMicrosecond, span.args);
}

void ChromeTrace::add_events(std::string_view events) {
  if (!events.empty()) {
    begin_event();
    events_ += events;
  }
}

std::string ChromeTrace::to_json() const {
  return fmt::format("{{\"displayTimeUnit\": \"ms\", \"traceEvents\": [\n{}\n]}}\n", events_);
}

void ChromeTrace::begin_event() {
  if (!events_.empty()) {
    events_ += ",\n";
  }
}

void ChromeTrace::metadata(std::string_view what, int process, int thread, std::string_view args) {
  begin_event();
  fmt::format_to(std::back_inserter(events_),
                 R"({{"ph": "M", "pid": {}, "tid": {}, "name": "{}", "args": {{{}}}}})", process,
                 thread, what, args);
}

}  // namespace cartesian
