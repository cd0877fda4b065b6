#pragma once
// ChromeTrace: spans of time as JSON that https://ui.perfetto.dev and chrome://tracing open.

#include <string>
#include <string_view>

namespace cartesian {

/// Not thread-safe. Names and categories are written as they are: no quotes or backslashes.
class ChromeTrace {
 public:
  /// Processes and threads are numbered from 1: the viewers take 0 for the idle one. A number means
  /// one thread in all processes together.
  void name_process(int process, std::string_view name, int place);
  void name_thread(int process, int thread, std::string_view name, int place);

  struct Span {
    int process = 1;
    int thread = 1;
    std::string_view name;
    std::string_view category;
    double start_s = 0;
    double end_s = 0;
    std::string_view args;  ///< the inside of a JSON object
  };
  /// Spans that touch do not overlap: their ends are rounded, not their lengths.
  void add(const Span& span);

  /// What was added, to be taken up by another: of another rank, say.
  const std::string& events() const { return events_; }
  void add_events(std::string_view events);

  /// The whole document.
  std::string to_json() const;

 private:
  void begin_event();
  void metadata(std::string_view what, int process, int thread, std::string_view args);

  std::string events_;
};

}  // namespace cartesian
