#pragma once
// Clock: where time comes from, so that tests can own it.

#include <atomic>
#include <chrono>

namespace cartesian {

using Seconds = std::chrono::duration<double>;

/// Monotonic time since an arbitrary start. Implementations are thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual Seconds now() const = 0;
};

class SteadyClock final : public Clock {
 public:
  Seconds now() const override { return std::chrono::steady_clock::now().time_since_epoch(); }
};

/// Time that stands still until advance() moves it.
class FakeClock final : public Clock {
 public:
  Seconds now() const override { return Seconds(now_.load()); }
  void advance(Seconds by) { now_.store(now_.load() + by.count()); }

 private:
  std::atomic<double> now_ = 0.0;
};

}  // namespace cartesian
