#include "runtime/stop_signal.h"

#include <unistd.h>

#include <csignal>
#include <ctime>

namespace cartesian {

namespace {

constexpr int kSignalExit = 128;  // plus the signal, as shells have it
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

void StopSignal::watch() {
  const sigset_t signals = stop_signals();
  const timespec poll{0, kPollNanoseconds};
  while (!ending_) {
    const int signal = sigtimedwait(&signals, nullptr, &poll);
    if (signal <= 0 || settled_) {
      continue;
    }
    const std::lock_guard lock(mutex_);
    if (!accepting_ || (requested_ && signal == SIGINT)) {
      _exit(kSignalExit + signal);
    }
    if (!requested_.exchange(true) && callback_) {
      callback_();
    }
  }
}

StopScope::StopScope(StopSignal& signal) : signal_(signal) {
  const std::lock_guard lock(signal_.mutex_);
  signal_.accepting_ = true;
}

StopScope::~StopScope() {
  const std::lock_guard lock(signal_.mutex_);
  signal_.accepting_ = false;
  signal_.callback_ = {};
}

void StopScope::set_callback(std::function<void()> callback) {
  const std::lock_guard lock(signal_.mutex_);
  signal_.callback_ = std::move(callback);
  if (signal_.requested_ && signal_.callback_) {
    signal_.callback_();
  }
}

}  // namespace cartesian
