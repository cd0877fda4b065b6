#pragma once
// ScrapeLoop: reads a job's metrics at an interval, on a thread of its own, so that a server that
// is slow to answer delays no key.

#include <condition_variable>
#include <exception>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "runtime/top/metrics_source.h"

namespace cartesian {

/// The run directory has no address any more.
struct JobEnded {};
/// The sentence of an Error: there was no reading.
struct ScrapeFailed {
  std::string why;
};
using Scrape = std::variant<JobSnapshot, ScrapeFailed, JobEnded>;

/// Thread-safe.
class ScrapeLoop {
 public:
  /// The first reading is an interval from now. `source`, which nobody else uses, must outlive it.
  ScrapeLoop(MetricsSource& source, Seconds interval);
  /// Does not wait for an answer.
  ~ScrapeLoop();
  ScrapeLoop(const ScrapeLoop&) = delete;
  ScrapeLoop& operator=(const ScrapeLoop&) = delete;

  /// Readable, for poll(2), while take() has something.
  int ready_fd() const { return ready_; }
  /// What came since the last call, oldest first. Rethrows what read() threw beside Error.
  std::vector<Scrape> take();

 private:
  void run();
  Scrape scrape();
  void put(Scrape scrape);

  MetricsSource& source_;
  const Seconds interval_;
  const int ready_;  // an eventfd
  std::mutex mutex_;
  std::condition_variable stop_changed_;
  bool stopping_ = false;        // guarded by mutex_
  std::vector<Scrape> scrapes_;  // guarded by mutex_
  std::exception_ptr bug_;       // guarded by mutex_
  std::thread thread_;
};

}  // namespace cartesian
