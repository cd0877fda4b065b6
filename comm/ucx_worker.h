#pragma once
// A UCP context with one worker: where UCX keeps its connections and what drives them. Calls may
// come from several threads, one at a time; signal() from any thread at any time.

#include <chrono>
#include <functional>
#include <string>

struct ucp_context;
struct ucp_worker;

namespace cartesian {

class UcxWorker {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  /// Throws CommError where UCX cannot start.
  UcxWorker();
  /// REQUIRES: the endpoints are closed.
  ~UcxWorker();
  UcxWorker(const UcxWorker&) = delete;
  UcxWorker& operator=(const UcxWorker&) = delete;

  ucp_worker* get() const { return worker_; }
  /// What a peer needs to make an endpoint to this worker.
  std::string address() const;

  /// Moves bytes and calls what is complete. Returns whether anything happened.
  bool progress();
  /// From here on event_fd() becomes readable when there is something to progress, and stays so
  /// until the next arm(). False: there is something already.
  bool arm();
  int event_fd() const { return event_fd_; }
  /// Makes event_fd() readable.
  void signal();
  /// Progresses until `done` or the deadline, asleep where nothing happens. Returns done().
  bool progress_until(const std::function<bool()>& done, TimePoint deadline);

 private:
  ucp_context* context_ = nullptr;
  ucp_worker* worker_ = nullptr;
  int event_fd_ = -1;
};

/// Sleeps until one of the descriptors is readable (-1: none) or until `deadline`.
void sleep_on(int fd, int other_fd, UcxWorker::TimePoint deadline);

}  // namespace cartesian
