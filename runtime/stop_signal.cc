#include "runtime/stop_signal.h"

#include <unistd.h>

#include <csignal>
#include <ctime>

namespace cartesian {

namespace {

constexpr int kInterrupted = 130;
constexpr long kPollNanoseconds =
    100'000'000;  // how soon the watcher sees that the process is ending

sigset_t stop_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGUSR1);
  return signals;
}

}  // namespace

StopSignal::StopSignal() {
  const sigset_t signals = stop_signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  watcher_ = std::thread([this] { watch(); });
}

StopSignal::~StopSignal() {
  ending_ = true;
  watcher_.join();
}

void StopSignal::set_callback(std::function<void()> callback) {
  const std::lock_guard lock(mutex_);
  callback_ = std::move(callback);
}

void StopSignal::watch() {
  const sigset_t signals = stop_signals();
  const timespec poll{0, kPollNanoseconds};
  while (!ending_) {
    const int signal = sigtimedwait(&signals, nullptr, &poll);
    if (signal <= 0) {
      continue;
    }
    if (requested_.exchange(true)) {
      if (signal == SIGINT) {
        _exit(kInterrupted);
      }
      continue;
    }
    const std::lock_guard lock(mutex_);
    if (callback_) {
      callback_();
    }
  }
}

}  // namespace cartesian
