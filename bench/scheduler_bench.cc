// What the control plane costs: a coordinator and simulated agents that talk to it over loopback
// TCP at 1 Hz, all of them driven by one other thread.
//   build/release/bench/scheduler_bench [AGENTS] [SECONDS]
// Prints how long registering took, the share of a core that the coordinator used at steady load,
// and how long a command took until the last agent had acknowledged it.

#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/time.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include "scheduler/agent_session.h"
#include "scheduler/asio_internal.h"
#include "scheduler/coordinator.h"
#include "scheduler/report_window.h"
#include "tests/scheduler/sample_job.h"

namespace cartesian {
namespace {

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
        session_(secret, testing_job::hello(rank, shape.ranks), SessionLimits{Seconds{60}},
                 SteadyClock().now()),
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
        coordinator_(options(), shape_, secret_) {
    coordinator_.observe([this](int rank, const StepReport& report) { window_.add(rank, report); });
    for (int rank = 0; rank < agents; ++rank) {
      agents_.push_back(std::make_unique<SimulatedAgent>(io_, secret_, shape_, rank));
    }
  }

  /// Returns seconds, or a negative number if some did not come in a minute.
  double register_all() {
    const Seconds start = clock_.now();
    const tcp::endpoint endpoint(asio::ip::make_address("127.0.0.1"), coordinator_.port());
    for (auto& agent : agents_) {
      agent->connect(endpoint);
      asio::co_spawn(io_, agent->listen(), asio::detached);
      io_.poll();
    }
    while (registered() < agents_.size()) {
      io_.run_for(std::chrono::milliseconds(1));
      if (clock_.now() - start > Seconds{60}) {
        return -1;
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

  /// Seconds until the last acknowledgement of a command of `bytes`, or negative after a minute.
  double command(std::size_t bytes) {
    const Seconds start = clock_.now();
    const std::uint64_t id = coordinator_.command("replan", std::string(bytes, 'p'));
    while (clock_.now() - start < Seconds{60}) {
      io_.run_for(std::chrono::milliseconds(1));
      bool reached = false;
      coordinator_.inspect(
          [&](const JobState& state) { reached = state.commands().find(id)->reached_all(); });
      if (reached) {
        return (clock_.now() - start).count();
      }
    }
    return -1;
  }

  std::int64_t reports() const {
    std::int64_t reports = 0;
    coordinator_.inspect([&](const JobState& /*state*/) { reports = window_.reports; });
    return reports;
  }
  std::int64_t troubles() const { return coordinator_.troubles(); }

 private:
  static CoordinatorOptions options() {
    CoordinatorOptions options;
    options.session.handshake = Seconds{60};
    return options;
  }

  SteadyClock clock_;
  JobSecret secret_ = JobSecret::random();
  JobShape shape_;
  ReportWindow window_;  // the coordinator's
  asio::io_context io_{1};
  Coordinator coordinator_;
  std::vector<std::unique_ptr<SimulatedAgent>> agents_;
};

void run(int agents, int seconds) {
  Crowd crowd(agents);
  fmt::print("{} agents\n", agents);
  std::fflush(stdout);
  fmt::print("  registered               {:8.3f} s\n", crowd.register_all());
  fmt::print("  share of a core at 1 Hz  {:8.3f}\n", crowd.talk(seconds));
  fmt::print("  command of 64 KiB        {:8.3f} s\n", crowd.command(std::size_t{64} << 10));
  fmt::print("  {} reports, {} connections ended\n", crowd.reports(), crowd.troubles());
  std::fflush(stdout);
}

}  // namespace
}  // namespace cartesian

int main(int argc, char** argv) {
  cartesian::allow_descriptors();
  cartesian::run(argc > 1 ? std::atoi(argv[1]) : 1024, argc > 2 ? std::atoi(argv[2]) : 10);
}
