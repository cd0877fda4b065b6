#pragma once
// StopSignal: SIGINT, SIGTERM and SIGUSR1 as a request to stop at the next step, with a checkpoint,
// while somebody can do so; else they end the process.

#include <atomic>
#include <functional>
#include <mutex>
#include <thread>

namespace cartesian {

/// One per process, made before any other thread: it blocks the three signals, which threads
/// inherit, and waits for them on a thread of its own. Outside a StopScope they end the process at
/// once with the exit code that a shell gives, 128 + signal; within one, a second SIGINT does.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  bool requested() const { return requested_.load(); }

  /// The process has its exit code and only ends: from now on the signals change nothing. Called
  /// before the ranks part, since a launcher sends TERM to all as soon as the first has ended with
  /// a code that is not 0, while others may still be leaving the last barrier.
  void settle() { settled_ = true; }

 private:
  friend class StopScope;
  void watch();

  std::atomic<bool> requested_ = false;
  std::atomic<bool> settled_ = false;
  std::atomic<bool> ending_ = false;
  std::mutex mutex_;
  bool accepting_ = false;          // guarded by mutex_
  std::function<void()> callback_;  // guarded by mutex_
  std::thread watcher_;
};

/// While it lives, a stop signal is a request.
class StopScope {
 public:
  explicit StopScope(StopSignal& signal);
  ~StopScope();
  StopScope(const StopScope&) = delete;
  StopScope& operator=(const StopScope&) = delete;

  /// From now on `callback`, if not empty, is called from the watching thread when a stop is first
  /// requested, or here and now if one was; the one before is not any more. It must not touch this
  /// scope.
  void set_callback(std::function<void()> callback);

 private:
  StopSignal& signal_;
};

}  // namespace cartesian
