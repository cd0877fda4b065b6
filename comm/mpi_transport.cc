#include "comm/mpi_transport.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "comm/collectives.h"
#include "comm/deadline.h"
#include "comm/mpi_engine.h"
#include "comm/traffic_counter.h"

namespace cartesian {

namespace {

using std::chrono::steady_clock;
using namespace std::chrono_literals;

/// A thread that waits in vain polls without a pause this long (what is on its way comes at once),
/// then yields between polls this long (ranks may share a core), then sleeps between polls, since
/// those that yield still take time from those that compute.
constexpr auto kSpinLimit = 50us;
constexpr auto kYieldLimit = 500us;
constexpr auto kPollSleep = 20us;
/// How often a rank looks for another's last words: while messages are in flight, and else.
constexpr auto kFailurePoll = 1ms;
constexpr auto kIdlePoll = 20ms;
/// How long abort() waits for its turn to call MPI.
constexpr auto kAbortPatience = 1s;

class MpiTransport;

class MpiRequest final : public Request {
 public:
  MpiRequest(MpiTransport& transport, std::shared_ptr<MpiGroup> group)
      : transport_(transport), group_(std::move(group)) {}
  ~MpiRequest() override;
  bool done() override { return group_->done.load(std::memory_order_acquire); }
  void wait() override;
  int last_peer() const override { return group_->last_peer; }

 private:
  MpiTransport& transport_;
  std::shared_ptr<MpiGroup> group_;
  bool waited_ = false;  ///< with success: every message is done
};

/// Who calls MPI when: a thread in wait() drives the engine itself; the helper does while messages
/// are in flight and nobody waits, and looks for failures while there are none.
class MpiTransport final : public Transport {
 public:
  explicit MpiTransport(const TransportOptions& options)
      : traffic_(options.metrics, engine_.site().rank, engine_.size()),
        timeout_(options.timeout),
        helper_([this] { help(); }) {}
  ~MpiTransport() override { stop_helper(); }

  int rank() const override { return engine_.site().rank; }
  int size() const override { return engine_.size(); }
  std::string host() const override { return engine_.site().host; }

  std::unique_ptr<Request> post(MessageGroup messages) override;
  int exchange(MessageGroup messages) override;
  void set_topology(const Topology& topology, std::vector<std::string> hosts) override {
    traffic_.set_topology(topology);
    const std::lock_guard lock(mpi_mutex_);
    engine_.set_hosts(std::move(hosts));
  }
  void set_step(std::int64_t step) override {
    const std::lock_guard lock(mpi_mutex_);
    engine_.set_step(step);
  }
  void abort(std::string_view cause) noexcept override;
  void finish() override;
  void set_timeout(Seconds timeout) override { timeout_.store(timeout); }

  void wait(const MpiGroup& group);
  void abandon(const MpiGroup& group);
  void lend_mpi(const std::function<void()>& work) {
    const std::lock_guard lock(mpi_mutex_);
    work();
  }

 private:
  std::shared_ptr<MpiGroup> start(const MessageGroup& messages);
  /// One turn at MPI; returns why `group` cannot complete, or empty.
  std::string poll(const MpiGroup& group, steady_clock::time_point start,
                   steady_clock::time_point now, bool& advanced);
  void help();
  void wake_helper();
  void stop_helper();

  std::mutex mpi_mutex_;
  MpiEngine
      engine_;  // guarded by mpi_mutex_, but for what never changes: size(), site()'s rank, host
  TrafficCounter traffic_;
  std::atomic<Seconds> timeout_;
  bool finished_ = false;

  std::atomic<int> waiting_ = 0;         ///< threads in wait()
  std::atomic<bool> in_flight_ = false;  ///< whether the engine has work
  std::mutex helper_mutex_;
  std::condition_variable helper_wakes_;
  bool stopping_ = false;  // guarded by helper_mutex_
  std::thread helper_;
};

MpiRequest::~MpiRequest() {
  if (!waited_) {
    transport_.abandon(*group_);
  }
}

void MpiRequest::wait() {
  transport_.wait(*group_);
  waited_ = true;
}

std::shared_ptr<MpiGroup> MpiTransport::start(const MessageGroup& messages) {
  for (const SendOp& send : messages.sends) {
    if (!send.bytes.empty()) {
      traffic_.count(send.peer, send.bytes.size());
    }
  }
  auto group = std::make_shared<MpiGroup>();
  group->phase = messages.phase;
  const std::lock_guard lock(mpi_mutex_);
  engine_.start(group, messages);
  in_flight_ = !engine_.idle();
  return group;
}

std::unique_ptr<Request> MpiTransport::post(MessageGroup messages) {
  auto request = std::make_unique<MpiRequest>(*this, start(messages));
  if (!request->done()) {
    wake_helper();
  }
  return request;
}

int MpiTransport::exchange(MessageGroup messages) {
  MpiRequest request(*this, start(messages));
  request.wait();
  return request.last_peer();
}

std::string MpiTransport::poll(const MpiGroup& group, steady_clock::time_point start,
                               steady_clock::time_point now, bool& advanced) {
  const Seconds timeout = timeout_;
  const std::lock_guard lock(mpi_mutex_);
  advanced = engine_.progress();
  engine_.poll_failures(now, kFailurePoll);
  in_flight_ = !engine_.idle();
  if (group.done) {
    return group.error;
  }
  if (engine_.failure()) {
    return failure_message(engine_.site(), *engine_.failure(), engine_.pending_peers(group),
                           group.phase);
  }
  if (now >= deadline_after(start, timeout)) {
    return deadline_message(engine_.site(), engine_.pending_peers(group), timeout, group.phase);
  }
  return {};
}

void MpiTransport::wait(const MpiGroup& group) {
  ++waiting_;
  const auto start = steady_clock::now();
  auto last_advance = start;
  std::string error;
  bool advanced = false;
  do {
    const auto now = steady_clock::now();
    error = poll(group, start, now, advanced);
    if (advanced || group.done) {
      last_advance = now;
    } else if (now - last_advance > kYieldLimit) {
      std::this_thread::sleep_for(kPollSleep);
    } else if (now - last_advance > kSpinLimit) {
      std::this_thread::yield();
    }
  } while (error.empty() && !group.done);
  if (--waiting_ == 0 && in_flight_) {
    wake_helper();
  }
  if (error.empty()) {
    error = group.error;
  }
  if (!error.empty()) {
    abandon(group);
    throw CommError(error);
  }
}

void MpiTransport::abandon(const MpiGroup& group) {
  const std::lock_guard lock(mpi_mutex_);
  engine_.abandon(group);
  in_flight_ = !engine_.idle();
}

void MpiTransport::abort(std::string_view cause) noexcept {
  try {
    std::unique_lock lock(mpi_mutex_, std::defer_lock);
    const auto limit = steady_clock::now() + kAbortPatience;
    while (!lock.try_lock()) {
      if (steady_clock::now() >= limit) {
        return;
      }
      std::this_thread::yield();
    }
    engine_.tell_failure(cause);
  } catch (const std::exception&) {
    // Out of memory for the text: the others' deadlines remain.
  }
}

void MpiTransport::finish() {
  if (finished_) {
    return;
  }
  barrier(*this, {"finish"});
  stop_helper();
  engine_.finalise();
  finished_ = true;
}

void MpiTransport::help() {
  std::unique_lock lock(helper_mutex_);
  while (!stopping_) {
    const bool busy = in_flight_ && waiting_ == 0;
    if (!busy) {
      helper_wakes_.wait_for(lock, kIdlePoll);
    }
    if (waiting_ != 0 || stopping_) {
      continue;
    }
    lock.unlock();
    bool advanced = false;
    {
      const std::lock_guard mpi_lock(mpi_mutex_);
      advanced = engine_.progress();
      engine_.poll_failures(steady_clock::now(), kFailurePoll);
      in_flight_ = !engine_.idle();
    }
    if (in_flight_ && !advanced) {
      std::this_thread::sleep_for(kPollSleep);
    }
    lock.lock();
  }
}

void MpiTransport::wake_helper() {
  // Through the mutex, so that the helper cannot miss it between its test and its wait.
  { const std::lock_guard lock(helper_mutex_); }
  helper_wakes_.notify_one();
}

void MpiTransport::stop_helper() {
  {
    const std::lock_guard lock(helper_mutex_);
    stopping_ = true;
  }
  helper_wakes_.notify_one();
  if (helper_.joinable()) {
    helper_.join();
  }
}

}  // namespace

bool mpi_available() { return true; }

std::unique_ptr<Transport> make_mpi_transport(const TransportOptions& options) {
  return std::make_unique<MpiTransport>(options);
}

void call_mpi(Transport& transport, const std::function<void()>& work) {
  auto* mpi = dynamic_cast<MpiTransport*>(&transport);
  if (mpi == nullptr) {
    throw ConfigError("MPI is called only where mpirun or another launcher has started the ranks");
  }
  mpi->lend_mpi(work);
}

}  // namespace cartesian
