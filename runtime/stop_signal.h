#pragma once
// StopSignal: SIGINT, SIGTERM and SIGUSR1 as a request to stop at the next step, with a checkpoint.

#include <atomic>
#include <functional>
#include <mutex>
#include <thread>

namespace cartesian {

/// One per process, made before any other thread: it blocks the three signals, which threads
/// inherit, and waits for them on a thread of its own. A second SIGINT ends the process at once
/// with code 130.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  bool requested() const { return requested_.load(); }
  /// Called from the watching thread when a stop is first requested; an empty function removes it.
  void set_callback(std::function<void()> callback);

 private:
  void watch();

  std::atomic<bool> requested_ = false;
  std::atomic<bool> ending_ = false;
  std::mutex mutex_;
  std::function<void()> callback_;  // guarded by mutex_
  std::thread watcher_;
};

}  // namespace cartesian
