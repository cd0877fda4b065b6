#include "comm/ucx_transport.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "comm/collectives.h"
#include "comm/deadline.h"
#include "comm/traffic_counter.h"
#include "comm/ucx_engine.h"

namespace cartesian {

namespace {

using std::chrono::steady_clock;
using namespace std::chrono_literals;

/// A thread that waits in vain polls this long (what is on its way comes at once) before it sleeps.
constexpr auto kSpinLimit = 50us;
/// A worker that has something to do but does not get on with it is looked at this often.
constexpr auto kBusyPause = 1ms;
/// How long the helper stays away when a waiting thread takes its place, before it asks to be
/// called back. Most waits are shorter, and so cost no call.
constexpr auto kStepAside = 1ms;
/// How long abort() waits for its turn.
constexpr auto kAbortPatience = 1s;
constexpr auto kNever = steady_clock::time_point::max();

/// Something to sleep on that any thread can end.
class WakeUp {
 public:
  WakeUp() : fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    if (fd_ < 0) {
      throw CommError("no file descriptor is left for the ucx transport");
    }
  }
  ~WakeUp() { ::close(fd_); }
  WakeUp(const WakeUp&) = delete;
  WakeUp& operator=(const WakeUp&) = delete;

  int fd() const { return fd_; }
  void set() { static_cast<void>(eventfd_write(fd_, 1)); }
  void clear() {
    eventfd_t count = 0;
    static_cast<void>(eventfd_read(fd_, &count));
  }

 private:
  int fd_;
};

class UcxTransport;

class UcxRequest final : public Request {
 public:
  UcxRequest(UcxTransport& transport, std::shared_ptr<UcxGroup> group)
      : transport_(transport), group_(std::move(group)) {}
  ~UcxRequest() override;
  bool done() override;
  void wait() override;
  int last_peer() const override { return group_->last_peer; }

 private:
  UcxTransport& transport_;
  std::shared_ptr<UcxGroup> group_;
  bool waited_ = false;  ///< with success: every message is done
};

/// Who drives the worker when: a thread in wait() does so itself, and when there is nothing to do
/// sleeps on the worker's event descriptor; the helper does while nobody waits, asleep on the same
/// descriptor. Only who arms the descriptor drains it, so whoever sleeps on it unarmed by others
/// wakes at the first event.
class UcxTransport final : public Transport {
 public:
  UcxTransport(Bootstrap& bootstrap, const TransportOptions& options)
      : engine_(bootstrap, options.timeout),
        traffic_(options.metrics, engine_.site().rank, engine_.size()),
        timeout_(options.timeout),
        helper_([this] { help(); }) {}
  ~UcxTransport() override;

  int rank() const override { return engine_.site().rank; }
  int size() const override { return engine_.size(); }
  std::string host() const override { return engine_.site().host; }

  std::unique_ptr<Request> post(MessageGroup messages) override;
  int exchange(MessageGroup messages) override;
  void set_topology(const Topology& topology, std::vector<std::string> hosts) override {
    traffic_.set_topology(topology);
    const std::lock_guard lock(mutex_);
    engine_.set_hosts(std::move(hosts));
  }
  void set_step(std::int64_t step) override {
    const std::lock_guard lock(mutex_);
    engine_.set_step(step);
  }
  void abort(std::string_view cause) noexcept override;
  void finish() override;
  void set_timeout(Seconds timeout) override;

  bool done(const UcxGroup& group) const { return group.done || engine_.failed(); }
  void wait(const UcxGroup& group);
  void abandon(const UcxGroup& group);

 private:
  std::shared_ptr<UcxGroup> start(const MessageGroup& messages);
  /// Why `group` cannot complete, or empty.
  std::string trouble(const UcxGroup& group, steady_clock::time_point start) const;
  /// Drives the worker until `group` is done or cannot be; says why.
  std::string drive(const UcxGroup& group, std::unique_lock<std::mutex>& lock);
  void help();
  void stop_helper();

  std::mutex mutex_;
  /// Guarded by mutex_, but for failed() and what never changes: size(), site()'s rank and host.
  UcxEngine engine_;
  TrafficCounter traffic_;
  std::atomic<Seconds> timeout_;
  bool waiting_ = false;   // guarded by mutex_: a thread is in wait()
  bool resting_ = false;   // guarded by mutex_: the helper wants to be called back
  bool stopping_ = false;  // guarded by mutex_
  bool closed_ = false;    // guarded by mutex_: finished, or has told of a failure
  WakeUp helper_wakes_;
  std::thread helper_;
};

UcxRequest::~UcxRequest() {
  if (!waited_) {
    transport_.abandon(*group_);
  }
}

bool UcxRequest::done() { return transport_.done(*group_); }

void UcxRequest::wait() {
  transport_.wait(*group_);
  waited_ = true;
}

UcxTransport::~UcxTransport() {
  if (!closed_) {
    abort("it ended without finishing");
  }
  stop_helper();
}

std::shared_ptr<UcxGroup> UcxTransport::start(const MessageGroup& messages) {
  for (const SendOp& send : messages.sends) {
    if (!send.bytes.empty()) {
      traffic_.count(send.peer, send.bytes.size());
    }
  }
  auto group = std::make_shared<UcxGroup>();
  group->phase = messages.phase;
  const std::lock_guard lock(mutex_);
  engine_.start(group, messages);
  return group;
}

std::unique_ptr<Request> UcxTransport::post(MessageGroup messages) {
  auto request = std::make_unique<UcxRequest>(*this, start(messages));
  if (!request->done()) {
    helper_wakes_.set();  // it may be asleep since before there was this to do
  }
  return request;
}

int UcxTransport::exchange(MessageGroup messages) {
  UcxRequest request(*this, start(messages));
  request.wait();
  return request.last_peer();
}

std::string UcxTransport::trouble(const UcxGroup& group, steady_clock::time_point start) const {
  if (group.done) {
    return group.error;
  }
  if (engine_.failure()) {
    return failure_message(engine_.site(), *engine_.failure(), engine_.pending_peers(group),
                           group.phase);
  }
  const Seconds timeout = timeout_;
  if (steady_clock::now() >= deadline_after(start, timeout)) {
    return deadline_message(engine_.site(), engine_.pending_peers(group), timeout, group.phase);
  }
  return {};
}

std::string UcxTransport::drive(const UcxGroup& group, std::unique_lock<std::mutex>& lock) {
  const auto start = steady_clock::now();
  auto last_advance = start;
  while (true) {
    const bool advanced = engine_.worker().progress();
    std::string error = trouble(group, start);
    if (group.done || !error.empty()) {
      return error;
    }
    const auto now = steady_clock::now();
    if (advanced) {
      last_advance = now;
    }
    if (now - last_advance <= kSpinLimit) {
      lock.unlock();
      std::this_thread::yield();
      lock.lock();
      continue;
    }
    const auto deadline = deadline_after(start, timeout_);
    const bool armed = engine_.worker().arm();
    const int fd = armed ? engine_.worker().event_fd() : -1;
    lock.unlock();
    sleep_on(fd, -1, armed ? deadline : std::min(deadline, now + kBusyPause));
    lock.lock();
  }
}

void UcxTransport::wait(const UcxGroup& group) {
  if (group.done.load(std::memory_order_acquire) && group.error.empty()) {
    return;
  }
  std::unique_lock lock(mutex_);
  waiting_ = true;
  const std::string error = drive(group, lock);
  waiting_ = false;
  if (!error.empty()) {
    engine_.abandon(group);
  }
  if (!engine_.idle() || resting_) {
    helper_wakes_.set();
  }
  lock.unlock();
  if (!error.empty()) {
    throw CommError(error);
  }
}

void UcxTransport::abandon(const UcxGroup& group) {
  const std::lock_guard lock(mutex_);
  engine_.abandon(group);
}

void UcxTransport::abort(std::string_view cause) noexcept {
  try {
    std::unique_lock lock(mutex_, std::defer_lock);
    const auto limit = steady_clock::now() + kAbortPatience;
    while (!lock.try_lock()) {
      if (steady_clock::now() >= limit) {
        return;
      }
      std::this_thread::yield();
    }
    if (!closed_) {
      closed_ = true;
      engine_.tell_failure(cause);
      engine_.worker().signal();  // for whoever waits
    }
  } catch (const std::exception&) {
    // Out of memory for the text: the others' deadlines remain.
  }
}

void UcxTransport::finish() {
  {
    const std::lock_guard lock(mutex_);
    if (closed_) {
      return;
    }
    // Nobody leaves the barrier before all have come to it, and so to this.
    engine_.expect_goodbyes();
  }
  barrier(*this, {"finish"});
  {
    const std::lock_guard lock(mutex_);
    engine_.settle();
  }
  // By this one every rank has settled: nobody still tries to connect to one that has ended.
  barrier(*this, {"finish"});
  stop_helper();
  const std::lock_guard lock(mutex_);
  engine_.close(/*in_order=*/true);
  closed_ = true;
}

void UcxTransport::set_timeout(Seconds timeout) {
  timeout_.store(timeout);
  const std::lock_guard lock(mutex_);
  if (waiting_) {
    engine_.worker().signal();
  }
}

void UcxTransport::help() {
  std::unique_lock lock(mutex_);
  bool was_aside = false;
  while (!stopping_) {
    int fd = -1;
    auto until = kNever;
    resting_ = waiting_ && was_aside;
    was_aside = waiting_;
    if (waiting_) {
      until = resting_ ? kNever : steady_clock::now() + kStepAside;
    } else if (engine_.worker().progress()) {
      until = steady_clock::time_point::min();
    } else if (engine_.worker().arm()) {
      fd = engine_.worker().event_fd();
    } else {
      until = steady_clock::now() + kBusyPause;
    }
    lock.unlock();
    if (until == steady_clock::time_point::min()) {
      std::this_thread::yield();
    } else {
      sleep_on(helper_wakes_.fd(), fd, until);
      helper_wakes_.clear();
    }
    lock.lock();
  }
}

void UcxTransport::stop_helper() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  helper_wakes_.set();
  if (helper_.joinable()) {
    helper_.join();
  }
}

}  // namespace

std::unique_ptr<Transport> make_ucx_transport(Bootstrap& bootstrap,
                                              const TransportOptions& options) {
  return std::make_unique<UcxTransport>(bootstrap, options);
}

}  // namespace cartesian
