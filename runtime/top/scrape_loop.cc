#include "runtime/top/scrape_loop.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <system_error>
#include <utility>

#include "base/error.h"

namespace cartesian {

namespace {

int make_eventfd() {
  const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) {
    throw Error("top: no event descriptor: " + std::generic_category().message(errno));
  }
  return fd;
}

}  // namespace

ScrapeLoop::ScrapeLoop(MetricsSource& source, Seconds interval)
    : source_(source), interval_(interval), ready_(make_eventfd()), thread_([this] { run(); }) {}

ScrapeLoop::~ScrapeLoop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  stop_changed_.notify_all();
  source_.cancel();
  thread_.join();
  close(ready_);
}

std::vector<Scrape> ScrapeLoop::take() {
  std::uint64_t count = 0;
  if (read(ready_, &count, sizeof(count)) < 0 && errno != EAGAIN) {
    throw Error("top: no event: " + std::generic_category().message(errno));
  }
  const std::lock_guard lock(mutex_);
  if (bug_) {
    std::rethrow_exception(bug_);
  }
  return std::exchange(scrapes_, {});
}

void ScrapeLoop::run() {
  std::unique_lock lock(mutex_);
  while (!stop_changed_.wait_for(lock, interval_, [&] { return stopping_; })) {
    lock.unlock();
    try {
      put(scrape());
    } catch (...) {
      const std::lock_guard guard(mutex_);
      bug_ = std::current_exception();
    }
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = write(ready_, &one, sizeof(one));
    lock.lock();
  }
}

Scrape ScrapeLoop::scrape() {
  try {
    if (std::optional<JobSnapshot> snapshot = source_.read()) {
      return std::move(*snapshot);
    }
    return JobEnded{};
  } catch (const Error& error) {
    return ScrapeFailed{error.what()};
  }
}

void ScrapeLoop::put(Scrape scrape) {
  const std::lock_guard lock(mutex_);
  scrapes_.push_back(std::move(scrape));
}

}  // namespace cartesian
