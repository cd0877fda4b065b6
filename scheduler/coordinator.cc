#include "scheduler/coordinator.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "base/error.h"
#include "scheduler/asio_internal.h"
#include "scheduler/coordinator_session.h"

namespace cartesian {

namespace {

constexpr std::size_t kTroublesKept = 16;
constexpr std::chrono::milliseconds kTick{100};
/// For which a connection that ended may take to read why.
constexpr Seconds kFarewell{1};

struct Connection {
  Connection(std::uint64_t number, tcp::socket its_socket, CoordinatorSession its_session)
      : id(number), socket(std::move(its_socket)), session(std::move(its_session)) {}

  std::uint64_t id;
  tcp::socket socket;
  CoordinatorSession session;
  bool writing = false;
  bool counted = false;  // its end
  Seconds close_at{};    // once it has ended
};

using ConnectionPtr = std::shared_ptr<Connection>;

}  // namespace

/// All but the functions under "any thread" runs on thread_, which alone touches what no mutex
/// guards.
class Coordinator::Server {
 public:
  Server(CoordinatorOptions options, JobShape shape, const JobSecret& secret)
      : options_(std::move(options)),
        secret_(secret),
        acceptor_(io_),
        timer_(io_),
        state_(std::move(shape), clock_, options_.job, random_id()) {
    port_ =
        listen_at(acceptor_, options_.address, options_.port, "the coordinator cannot listen at");
    spawn(accept_all());
    spawn(tick_all());
    thread_ = std::thread([this] { io_.run(); });
  }

  ~Server() {
    asio::post(io_, [this] {
      stopping_ = true;
      error_code ignored;
      acceptor_.close(ignored);
      timer_.cancel();
      while (!connections_.empty()) {
        close(ConnectionPtr(connections_.begin()->second));
      }
    });
    thread_.join();  // with every wait cancelled the coroutines end
  }

  // Any thread.
  std::uint16_t port() const { return port_; }

  std::uint64_t command(std::string kind, std::string payload, std::int64_t earliest) {
    std::uint64_t id = 0;
    {
      const std::lock_guard lock(mutex_);
      id = state_.command(std::move(kind), std::move(payload), earliest).id;
    }
    asio::post(io_, [this, id] { send_to_all(id); });
    return id;
  }

  void inspect(const std::function<void(const JobState&)>& look) const {
    const std::lock_guard lock(mutex_);
    look(state_);
  }

  JobStanding standing() const {
    const std::lock_guard lock(standing_mutex_);
    return standing_;
  }

  void observe(ReportObserver observer) {
    const std::lock_guard lock(mutex_);
    state_.observe(std::move(observer));
  }

  std::int64_t troubles() const {
    const std::lock_guard lock(mutex_);
    return troubles_;
  }

  std::vector<std::string> last_troubles() const {
    const std::lock_guard lock(mutex_);
    return {last_troubles_.begin(), last_troubles_.end()};
  }

 private:
  void spawn(awaitable<void> work) { asio::co_spawn(io_, std::move(work), asio::detached); }

  awaitable<void> accept_all() {
    while (!stopping_) {
      error_code error;
      tcp::socket socket = co_await acceptor_.async_accept(error_in(error));
      if (stopping_) {
        co_return;
      }
      if (error) {  // such as no file descriptor left: later there may be one
        asio::steady_timer pause(io_, kTick);
        co_await pause.async_wait(error_in(error));
        continue;
      }
      socket.non_blocking(true, error);
      socket.set_option(tcp::no_delay(true), error);
      make_room();
      auto connection = std::make_shared<Connection>(
          ++last_id_, std::move(socket),
          CoordinatorSession(secret_, state_.shape().ranks, random_nonce(), options_.session,
                             clock_.now()));
      connections_.emplace(connection->id, connection);
      strangers_.emplace(connection->id, connection);
      spawn(read_all(connection));
    }
  }

  /// Keys rise with time: the first stranger is the oldest.
  void make_room() {
    const std::size_t limit = options_.strangers + static_cast<std::size_t>(state_.shape().ranks);
    while (strangers_.size() >= limit) {
      const ConnectionPtr oldest = strangers_.begin()->second;
      oldest->session.end("too many connections that have not registered");
      settle(oldest);
      close(oldest);
    }
  }

  awaitable<void> read_all(ConnectionPtr connection) {
    while (!connection->session.ended()) {
      error_code error;
      co_await connection->socket.async_wait(tcp::socket::wait_read, error_in(error));
      std::size_t size = 0;
      if (!error) {
        size = connection->socket.read_some(asio::buffer(buffer_), error);
      }
      if (error == asio::error::would_block || error == asio::error::try_again) {
        continue;
      }
      if (error) {
        connection->session.end("the connection broke: " + error.message());
      } else {
        connection->session.receive({buffer_.data(), size}, clock_.now());
      }
      settle(connection);
    }
  }

  /// Does what the session's events ask for, sends its output, and sees to its end.
  void settle(const ConnectionPtr& connection) {
    CoordinatorSession& session = connection->session;
    // Admitting a rank may bring more events: what it sent meanwhile.
    for (auto events = session.take_events(); !events.empty(); events = session.take_events()) {
      for (CoordinatorEvent& event : events) {
        std::visit([&](auto& message) { handle(connection, message); }, event);
      }
    }
    flush(connection);
    if (session.ended() && !connection->counted) {
      finish(connection);
    }
  }

  void handle(const ConnectionPtr& connection, Hello& hello) {
    Admission admission;
    std::vector<Command> owed;
    {
      const std::lock_guard lock(mutex_);
      admission = state_.admit(hello, connection->id);
      for (const Command* command : state_.commands().owed(hello.rank)) {
        owed.push_back(*command);
      }
      connection->session.set_step(state_.step());
      note_overdue();
    }
    if (!admission.refusal.empty()) {
      connection->session.refuse(admission.refusal);
      return;
    }
    if (const auto old = connections_.find(admission.replaced); old != connections_.end()) {
      const ConnectionPtr replaced = old->second;
      replaced->session.end("the same process has a newer connection");
      settle(replaced);
    }
    strangers_.erase(connection->id);
    connection->session.admit(clock_.now());
    for (const Command& command : owed) {
      connection->session.send(command);
    }
  }

  void handle(const ConnectionPtr& connection, const Heartbeat& heartbeat) {
    const std::lock_guard lock(mutex_);
    state_.heartbeat(connection->session.rank(), heartbeat);
    connection->session.set_step(state_.step());
  }

  void handle(const ConnectionPtr& connection, StepReport& report) {
    std::string wrong;
    {
      const std::lock_guard lock(mutex_);
      wrong = state_.report(connection->session.rank(), std::move(report));
      note_stragglers();
    }
    if (!wrong.empty()) {
      connection->session.end(wrong);
    }
  }

  /// Both REQUIRE mutex_.
  void note_stragglers() {
    const StragglerWatch& watch = state_.stragglers();
    const std::lock_guard lock(standing_mutex_);
    standing_.blind = watch.blind();
    if (standing_.stragglers != watch.named()) {
      standing_.stragglers = watch.named();
    }
  }
  void note_overdue() {
    std::vector<int> overdue = state_.overdue();
    const std::lock_guard lock(standing_mutex_);
    standing_.overdue = std::move(overdue);
  }

  void handle(const ConnectionPtr& connection, const Ack& ack) {
    const std::lock_guard lock(mutex_);
    state_.acknowledge(connection->session.rank(), ack);
  }

  void handle(const ConnectionPtr& connection, const Goodbye& goodbye) {
    const std::lock_guard lock(mutex_);
    state_.goodbye(connection->session.rank(), goodbye);
    connection->counted = true;
    state_.disconnect(connection->session.rank(), connection->id, "said goodbye");
    strangers_.erase(connection->id);
    connection->close_at = clock_.now() + kFarewell;
  }

  /// The session has ended, for a reason that is told once.
  void finish(const ConnectionPtr& connection) {
    connection->counted = true;
    connection->close_at = clock_.now() + kFarewell;
    strangers_.erase(connection->id);
    const std::lock_guard lock(mutex_);
    if (connection->session.rank() >= 0) {
      state_.disconnect(connection->session.rank(), connection->id, connection->session.ending());
    }
    ++troubles_;
    last_troubles_.push_back(connection->session.ending());
    if (last_troubles_.size() > kTroublesKept) {
      last_troubles_.pop_front();
    }
  }

  void flush(const ConnectionPtr& connection) {
    if (!connection->writing) {
      std::string output = connection->session.take_output();
      if (!output.empty()) {
        connection->writing = true;
        spawn(write_all(connection, std::move(output)));
      } else if (connection->session.ended()) {
        close(connection);
      }
    }
  }

  awaitable<void> write_all(ConnectionPtr connection, std::string output) {
    error_code error;
    while (!error && !output.empty()) {
      co_await asio::async_write(connection->socket, asio::buffer(output), error_in(error));
      output = connection->session.take_output();
    }
    connection->writing = false;
    if (error) {
      connection->session.end("the connection broke: " + error.message());
    }
    settle(connection);
  }

  void close(const ConnectionPtr& connection) {
    error_code ignored;
    connection->socket.shutdown(tcp::socket::shutdown_both, ignored);
    connection->socket.close(ignored);
    strangers_.erase(connection->id);
    connections_.erase(connection->id);
  }

  awaitable<void> tick_all() {
    while (!stopping_) {
      error_code error;
      timer_.expires_after(kTick);
      co_await timer_.async_wait(error_in(error));
      const Seconds now = clock_.now();
      std::vector<ConnectionPtr> due;
      for (const auto& [id, connection] : connections_) {
        connection->session.tick(now);
        if (connection->session.ended()) {
          due.push_back(connection);
        }
      }
      {
        const std::lock_guard lock(mutex_);
        note_overdue();
      }
      for (const ConnectionPtr& connection : due) {
        settle(connection);
        if (now > connection->close_at) {
          close(connection);
        }
      }
    }
  }

  void send_to_all(std::uint64_t id) {
    Command command;
    {
      const std::lock_guard lock(mutex_);
      const CommandStatus* status = state_.commands().find(id);
      if (status == nullptr) {
        return;
      }
      command = status->command;
    }
    std::vector<ConnectionPtr> all;
    for (const auto& [number, connection] : connections_) {
      all.push_back(connection);
    }
    for (const ConnectionPtr& connection : all) {
      connection->session.send(command);
      settle(connection);
    }
  }

  CoordinatorOptions options_;
  JobSecret secret_;
  SteadyClock clock_;
  asio::io_context io_{1};
  tcp::acceptor acceptor_;
  asio::steady_timer timer_;
  bool stopping_ = false;
  std::uint16_t port_ = 0;
  std::array<char, kReadSize> buffer_{};
  std::uint64_t last_id_ = 0;
  std::map<std::uint64_t, ConnectionPtr> connections_;
  std::map<std::uint64_t, ConnectionPtr> strangers_;  // those that have not registered
  mutable std::mutex mutex_;
  JobState state_;                         // guarded by mutex_
  std::int64_t troubles_ = 0;              // guarded by mutex_
  std::deque<std::string> last_troubles_;  // guarded by mutex_
  mutable std::mutex standing_mutex_;      // taken under mutex_, never the other way round
  JobStanding standing_;                   // guarded by standing_mutex_
  std::thread thread_;
};

Coordinator::Coordinator(CoordinatorOptions options, JobShape shape, const JobSecret& secret)
    : server_(std::make_unique<Server>(std::move(options), std::move(shape), secret)) {}
Coordinator::~Coordinator() = default;

std::uint16_t Coordinator::port() const { return server_->port(); }
std::uint64_t Coordinator::command(std::string kind, std::string payload, std::int64_t earliest) {
  return server_->command(std::move(kind), std::move(payload), earliest);
}
void Coordinator::inspect(const std::function<void(const JobState&)>& look) const {
  server_->inspect(look);
}
JobStanding Coordinator::standing() const { return server_->standing(); }
void Coordinator::observe(ReportObserver observer) { server_->observe(std::move(observer)); }
std::int64_t Coordinator::troubles() const { return server_->troubles(); }
std::vector<std::string> Coordinator::last_troubles() const { return server_->last_troubles(); }

}  // namespace cartesian
