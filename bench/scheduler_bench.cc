// What the control plane costs: a coordinator and simulated agents that talk to it over loopback
// TCP at 1 Hz, all of them driven by one other thread.
//   build/release/bench/scheduler_bench [AGENTS] [SECONDS] [--untimed]
// Prints how long registering took, the share of a core that the coordinator used at steady load,
// and how long a command took until the last agent had acknowledged it. The exit code is 1 if an
// agent, a report or an acknowledgement is missing, and, but with --untimed, if a limit is exceeded
// that is printed beside its figure.

#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/time.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "scheduler/agent_session.h"
#include "scheduler/asio_internal.h"
#include "scheduler/coordinator.h"
#include "scheduler/report_window.h"
#include "tests/scheduler/sample_job.h"

namespace cartesian {
namespace {

/// What a job of so many ranks may cost; larger jobs have no limit of time.
constexpr int kLimitedAgents = 1024;
constexpr double kMostShare = 0.25;
constexpr double kMostCommandS = 1;
/// How long to wait for what does not come.
constexpr Seconds kPatience{60};

/// Processor time of `who`, user's and system's.
double used_s(int who) {
  rusage usage{};
  getrusage(who, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

/// Of all threads but the calling one: the coordinator's.
double others_used_s() { return used_s(RUSAGE_SELF) - used_s(RUSAGE_THREAD); }

/// Both ends of every connection are this process's.
void allow_descriptors() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

class SimulatedAgent {
 public:
  SimulatedAgent(asio::io_context& io, const JobSecret& secret, const JobShape& shape, int rank)
      : socket_(io),
        session_(secret, testing_job::hello(rank, shape.ranks), {}, SteadyClock().now()),
        report_(testing_job::report(shape, rank, 0)) {}

  void connect(const tcp::endpoint& endpoint) {
    socket_.connect(endpoint);
    socket_.set_option(tcp::no_delay(true));
    socket_.non_blocking(true);
    flush();
  }

  /// Reads and answers what has come.
  awaitable<void> listen() {
    std::vector<char> buffer(4096);
    while (!session_.ended()) {
      error_code error;
      const std::size_t size =
          co_await socket_.async_read_some(asio::buffer(buffer), error_in(error));
      if (error) {
        session_.end(error.message());
      }
      session_.receive({buffer.data(), size}, SteadyClock().now());
      for (const Command& command : session_.take_commands()) {
        session_.send(Ack{command.id, true});
      }
      flush();
    }
  }

  void step(std::int64_t step) {
    report_.step = step;
    session_.send(Heartbeat{step});
    session_.send(report_);
    flush();
  }

  /// Gives up as a job's agents do.
  void tick() { session_.tick(SteadyClock().now()); }
  bool registered() const { return session_.registered(); }

 private:
  /// Messages fit a socket's buffer unless the coordinator has fallen far behind.
  void flush() {
    const std::string output = session_.take_output();
    error_code error;
    if (!output.empty() && asio::write(socket_, asio::buffer(output), error) != output.size()) {
      session_.end("the coordinator does not keep up");
    }
  }

  tcp::socket socket_;
  AgentSession session_;
  StepReport report_;
};

class Crowd {
 public:
  explicit Crowd(int agents)
      : shape_(testing_job::shape(agents, {4, 2, 64})),
        window_(shape_),
        coordinator_({}, shape_, secret_) {
    coordinator_.observe([this](int rank, const StepReport& report) { window_.add(rank, report); });
    for (int rank = 0; rank < agents; ++rank) {
      agents_.push_back(std::make_unique<SimulatedAgent>(io_, secret_, shape_, rank));
    }
  }

  /// Seconds until all have registered, or were waited for long enough; see registered().
  double register_all() {
    const Seconds start = clock_.now();
    const tcp::endpoint endpoint(asio::ip::make_address("127.0.0.1"), coordinator_.port());
    for (auto& agent : agents_) {
      agent->connect(endpoint);
      asio::co_spawn(io_, agent->listen(), asio::detached);
      io_.poll();
    }
    while (registered() < agents_.size() && clock_.now() - start < kPatience) {
      io_.run_for(std::chrono::milliseconds(1));
      for (auto& agent : agents_) {
        agent->tick();
      }
    }
    return (clock_.now() - start).count();
  }

  std::size_t registered() const {
    std::size_t count = 0;
    for (const auto& agent : agents_) {
      count += agent->registered() ? 1 : 0;
    }
    return count;
  }

  /// Every agent reports once a second, evenly spread; returns the coordinator's share of a core.
  double talk(int seconds) {
    const Seconds start = clock_.now();
    const double used = others_used_s();
    const auto all = static_cast<std::int64_t>(agents_.size());
    for (std::int64_t next = 0; next < all * seconds;) {
      io_.run_for(std::chrono::milliseconds(1));
      const double passed = (clock_.now() - start).count();
      for (; next < all * seconds && static_cast<double>(next) < passed * static_cast<double>(all);
           ++next) {
        agents_[static_cast<std::size_t>(next % all)]->step(next / all);
      }
    }
    return (others_used_s() - used) / (clock_.now() - start).count();
  }

  /// Seconds until the last acknowledgement of a command of `bytes`; see acknowledged().
  double command(std::size_t bytes) {
    const Seconds start = clock_.now();
    command_ = coordinator_.command("replan", std::string(bytes, 'p'));
    while (acknowledged() < static_cast<std::int64_t>(agents_.size()) &&
           clock_.now() - start < kPatience) {
      io_.run_for(std::chrono::milliseconds(1));
    }
    return (clock_.now() - start).count();
  }

  std::int64_t acknowledged() const {
    std::int64_t count = 0;
    coordinator_.inspect(
        [&](const JobState& state) { count = state.commands().find(command_)->acknowledgements; });
    return count;
  }

  std::int64_t reports() const {
    std::int64_t reports = 0;
    coordinator_.inspect([&](const JobState& /*state*/) { reports = window_.reports; });
    return reports;
  }
  std::int64_t troubles() const { return coordinator_.troubles(); }

 private:
  SteadyClock clock_;
  JobSecret secret_ = JobSecret::random();
  JobShape shape_;
  ReportWindow window_;  // the coordinator's
  asio::io_context io_{1};
  Coordinator coordinator_;
  std::vector<std::unique_ptr<SimulatedAgent>> agents_;
  std::uint64_t command_ = 0;
};

/// Prints what was found beside what is asked of it, and keeps whether all holds.
class Verdict {
 public:
  void figure(const char* name, double value, const char* unit, std::optional<double> limit) {
    fmt::print("  {:<24} {:8.3f}{}", name, value, unit);
    if (limit) {
      fmt::print(" (limit {:g}{})", *limit, unit);
    }
    end_line(!limit || value <= *limit);
  }
  void count(const char* name, std::int64_t found, std::int64_t expected) {
    fmt::print("  {:<24} {:8} of {}", name, found, expected);
    end_line(found == expected);
  }
  bool holds() const { return holds_; }

 private:
  void end_line(bool holds) {
    fmt::print("{}\n", holds ? "" : ": FAILED");
    std::fflush(stdout);
    holds_ = holds_ && holds;
  }

  bool holds_ = true;
};

bool run(int agents, int seconds, bool timed) {
  const auto limit = [&](double value) {
    return timed && agents <= kLimitedAgents ? std::optional(value) : std::nullopt;
  };
  Crowd crowd(agents);
  Verdict verdict;
  fmt::print("{} agents\n", agents);
  verdict.figure("registering", crowd.register_all(), " s", std::nullopt);
  verdict.count("registered", static_cast<std::int64_t>(crowd.registered()), agents);
  verdict.figure("share of a core at 1 Hz", crowd.talk(seconds), "", limit(kMostShare));
  verdict.figure("command of 64 KiB", crowd.command(std::size_t{64} << 10), " s",
                 limit(kMostCommandS));
  verdict.count("acknowledged", crowd.acknowledged(), agents);
  verdict.count("reports", crowd.reports(), std::int64_t{agents} * seconds);
  verdict.count("connections ended", crowd.troubles(), 0);
  return verdict.holds();
}

}  // namespace
}  // namespace cartesian

int main(int argc, char** argv) {
  CLI::App app("What the control plane costs");
  int agents = 1024;
  int seconds = 10;
  bool untimed = false;
  app.add_option("agents", agents)->check(CLI::Range(1, 100000));
  app.add_option("seconds", seconds)->check(CLI::Range(1, 100000));
  app.add_flag("--untimed", untimed, "no figure of time is too high");
  CLI11_PARSE(app, argc, argv);
  try {
    cartesian::allow_descriptors();
    return cartesian::run(agents, seconds, !untimed) ? 0 : 1;
  } catch (const std::exception& error) {
    fmt::print(stderr, "scheduler_bench: {}\n", error.what());
    return 1;
  }
}
