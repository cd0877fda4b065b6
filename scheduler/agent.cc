#include "scheduler/agent.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "base/error.h"
#include "scheduler/agent_session.h"
#include "scheduler/asio_internal.h"

namespace cartesian {

namespace {

constexpr Seconds kTick{0.05};
constexpr Seconds kForever{1e8};
/// Of what the coordinator allows, so that bursts and heartbeats fit, too.
constexpr double kShareOfRate = 0.5;

tcp::endpoint endpoint_of(const AgentOptions& options) {
  error_code error;
  const auto address = asio::ip::make_address(options.address, error);
  if (error) {
    throw ConfigError(
        fmt::format("the coordinator's address '{}' is not a numeric one", options.address));
  }
  return {address, options.port};
}

}  // namespace

/// All but the functions under "any thread" runs on thread_, which alone touches what no mutex
/// guards.
class Agent::Client {
 public:
  Client(AgentOptions options, const JobSecret& secret)
      : options_(std::move(options)),
        endpoint_(endpoint_of(options_)),
        secret_(secret),
        instance_(random_id()),
        socket_(io_),
        timer_(io_),
        backoff_timer_(io_) {
    asio::co_spawn(io_, connect_for_ever(), asio::detached);
    asio::co_spawn(io_, tick_for_ever(), asio::detached);
    thread_ = std::thread([this] { io_.run(); });
  }

  ~Client() {
    asio::post(io_, [this] {
      stopping_ = true;
      timer_.cancel();
      backoff_timer_.cancel();
      close();
    });
    thread_.join();  // with every wait cancelled the coroutines end
  }

  // Any thread.
  void report(StepReport report) {
    const std::lock_guard lock(mutex_);
    if (reports_.size() >= std::max<std::size_t>(1, options_.queue)) {
      reports_.pop_front();
      ++status_.dropped;
    }
    reports_.push_back(std::move(report));
  }

  std::optional<Command> take_command(std::int64_t step) {
    const std::lock_guard lock(mutex_);
    step_ = std::max(step_, step);
    const auto found = std::ranges::find_if(
        commands_, [&](const Command& command) { return command.at_step == step; });
    if (found == commands_.end()) {
      std::erase_if(commands_, [&](const Command& command) { return command.at_step < step; });
      return std::nullopt;
    }
    Command command = std::move(*found);
    commands_.erase(found);
    return command;
  }

  AgentStatus status() const {
    const std::lock_guard lock(mutex_);
    return status_;
  }

  bool finish(int exit_code, std::string reason, Seconds timeout) {
    std::unique_lock lock(mutex_);
    goodbye_ = Goodbye{exit_code, std::move(reason)};
    return finished_.wait_for(lock, std::min(timeout, kForever), [&] { return said_goodbye_; });
  }

 private:
  awaitable<void> connect_for_ever() {
    Seconds backoff = options_.backoff;
    while (!stopping_) {
      const bool was_registered = co_await connect_once();
      if (stopping_ || finished()) {
        co_return;
      }
      backoff = was_registered ? options_.backoff : std::min(2 * backoff, options_.max_backoff);
      // Ranks that lost their coordinator together do not return together.
      const double spread = 0.5 + static_cast<double>(random_id() % 1024) / 1024;
      error_code ignored;
      backoff_timer_.expires_after(in_ns(backoff * spread));
      co_await backoff_timer_.async_wait(error_in(ignored));
    }
  }

  /// One connection from its beginning to its end; true if it was registered.
  awaitable<bool> connect_once() {
    error_code error;
    socket_ = tcp::socket(io_);
    connect_by_ = clock_.now() + options_.session.handshake;
    co_await socket_.async_connect(endpoint_, error_in(error));
    connect_by_ = Seconds::max();
    if (error) {
      note_end(fmt::format("rank {} ({}): no connection to the coordinator at {} port {}: {}",
                           options_.rank, options_.host, options_.address, options_.port,
                           error.message()));
      co_return false;
    }
    socket_.set_option(tcp::no_delay(true), error);
    Hello hello;
    hello.rank = options_.rank;
    hello.ranks = options_.ranks;
    hello.instance = instance_;
    hello.pid = getpid();
    hello.host = options_.host;
    hello.nonce = random_nonce();
    session_.emplace(secret_, hello, options_.session, clock_.now());
    next_heartbeat_ = Seconds{};
    registered_ = false;
    flush();
    co_await read_all();
    while (writing_) {  // the socket must not change under it
      backoff_timer_.expires_after(in_ns(kTick));
      co_await backoff_timer_.async_wait(error_in(error));
    }
    note_end(session_->ending());
    session_.reset();
    co_return registered_;
  }

  awaitable<void> read_all() {
    while (!session_->ended()) {
      error_code error;
      const std::size_t size =
          co_await socket_.async_read_some(asio::buffer(buffer_), error_in(error));
      if (error) {
        note_farewell(error);
        session_->end("the connection broke: " + error.message());
      } else {
        session_->receive({buffer_.data(), size}, clock_.now());
      }
      settle();
    }
    close();
  }

  /// Does what has come, sends what is due, and sees to the end.
  void settle() {
    if (session_->registered() && !registered_) {
      registered_ = true;
      const std::lock_guard lock(mutex_);
      status_.registered = true;
      ++status_.registrations;
      status_.trouble.clear();
    }
    for (Command& command : session_->take_commands()) {
      session_->send(take_in(std::move(command)));
    }
    send_due();
    flush();
    if (session_->ended()) {
      close();
    }
  }

  Ack take_in(Command command) {
    const std::lock_guard lock(mutex_);
    const auto [seen, is_new] = seen_.emplace(command.id, command.at_step > step_);
    const Ack ack{command.id, seen->second};
    if (is_new && ack.in_time) {
      commands_.push_back(std::move(command));
    }
    return ack;
  }

  /// Heartbeats when it is time, reports as the rate allows, the goodbye after the last.
  void send_due() {
    const Seconds now = clock_.now();
    const std::lock_guard lock(mutex_);
    if (!session_->registered() || goodbye_sent_) {
      return;
    }
    if (now >= next_heartbeat_) {
      next_heartbeat_ = now + options_.heartbeat;
      session_->send(Heartbeat{step_});
    }
    const double rate = kShareOfRate * options_.session.messages_per_s;
    allowance_ = std::min(kShareOfRate * options_.session.burst,
                          allowance_ + (now - filled_).count() * rate);
    filled_ = now;
    // What is being written is waited for: the queue, not the outbox, is where reports pile up.
    while (!writing_ && !reports_.empty() && allowance_ >= 1) {
      session_->send(reports_.front());
      reports_.pop_front();
      ++status_.sent;
      --allowance_;
    }
    if (!writing_ && reports_.empty() && goodbye_) {
      session_->send(*goodbye_);
      goodbye_sent_ = true;
    }
  }

  void flush() {
    if (!writing_ && socket_.is_open()) {
      std::string output = session_->take_output();
      if (!output.empty()) {
        writing_ = true;
        asio::co_spawn(io_, write_all(std::move(output)), asio::detached);
      }
    }
  }

  awaitable<void> write_all(std::string output) {
    error_code error;
    while (!error && !output.empty()) {
      co_await asio::async_write(socket_, asio::buffer(output), error_in(error));
      output = session_->take_output();
    }
    writing_ = false;
    if (error) {
      session_->end("the connection broke: " + error.message());
      close();
    }
  }

  /// A coordinator that has taken the goodbye closes the connection.
  void note_farewell(const error_code& error) {
    const std::lock_guard lock(mutex_);
    if (error == asio::error::eof && goodbye_sent_ && !writing_) {
      said_goodbye_ = true;
      finished_.notify_all();
    }
  }

  bool finished() const {
    const std::lock_guard lock(mutex_);
    return said_goodbye_;
  }

  awaitable<void> tick_for_ever() {
    while (!stopping_) {
      error_code ignored;
      timer_.expires_after(in_ns(kTick));
      co_await timer_.async_wait(error_in(ignored));
      if (clock_.now() > connect_by_) {
        close();
      }
      if (session_ && !session_->ended()) {
        session_->tick(clock_.now());
        settle();
      }
    }
  }

  void close() {
    error_code ignored;
    socket_.close(ignored);
  }

  void note_end(std::string why) {
    const std::lock_guard lock(mutex_);
    status_.registered = false;
    status_.trouble = std::move(why);
    goodbye_sent_ = said_goodbye_;  // one that was cut is said again
  }

  AgentOptions options_;
  tcp::endpoint endpoint_;
  JobSecret secret_;
  std::uint64_t instance_;
  SteadyClock clock_;
  asio::io_context io_{1};
  tcp::socket socket_;
  asio::steady_timer timer_;
  asio::steady_timer backoff_timer_;
  std::optional<AgentSession> session_;
  std::array<char, kReadSize> buffer_{};
  bool stopping_ = false;
  bool writing_ = false;
  bool registered_ = false;
  Seconds connect_by_ = Seconds::max();
  Seconds next_heartbeat_{};
  Seconds filled_{};
  double allowance_ = 0;

  mutable std::mutex mutex_;
  std::condition_variable finished_;
  AgentStatus status_;                  // guarded by mutex_
  std::deque<StepReport> reports_;      // guarded by mutex_
  std::vector<Command> commands_;       // guarded by mutex_
  std::map<std::uint64_t, bool> seen_;  // guarded by mutex_; commands by id: in time?
  std::int64_t step_ = -1;              // guarded by mutex_; the highest that began
  std::optional<Goodbye> goodbye_;      // guarded by mutex_
  bool goodbye_sent_ = false;           // guarded by mutex_; on the present connection
  bool said_goodbye_ = false;           // guarded by mutex_; and the coordinator took it
  std::thread thread_;
};

Agent::Agent(AgentOptions options, const JobSecret& secret)
    : client_(std::make_unique<Client>(std::move(options), secret)) {}
Agent::~Agent() = default;

void Agent::report(StepReport report) { client_->report(std::move(report)); }
std::optional<Command> Agent::take_command(std::int64_t step) {
  return client_->take_command(step);
}
AgentStatus Agent::status() const { return client_->status(); }
bool Agent::finish(int exit_code, std::string reason, Seconds timeout) {
  return client_->finish(exit_code, std::move(reason), timeout);
}

}  // namespace cartesian
