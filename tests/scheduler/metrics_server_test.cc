// A job's coordinator, its monitor and the HTTP server, over loopback. Every wait ends with the
// server's own time limits.

#include "scheduler/metrics_server.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "base/error.h"
#include "base/file_system.h"
#include "scheduler/agent.h"
#include "scheduler/asio_internal.h"
#include "tests/scheduler/sample_job.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_directory.h"

namespace cartesian {
namespace {

constexpr int kRanks = 2;
constexpr Seconds kPatience{30};

class MetricsServerTest : public ::testing::Test {
 protected:
  void serve(MetricsServerOptions options = {}) {
    server_ = std::make_unique<MetricsServer>(std::move(options), monitor_);
  }

  tcp::socket connect() {
    tcp::socket socket(io_);
    socket.connect({asio::ip::make_address("127.0.0.1"), server_->port()});
    return socket;
  }

  static std::string read_all(tcp::socket& socket) {
    std::string text;
    error_code error;
    asio::read(socket, asio::dynamic_buffer(text), error);
    return text;
  }

  /// The answer to these bytes.
  std::string ask(const std::string& bytes) {
    tcp::socket socket = connect();
    error_code error;
    asio::write(socket, asio::buffer(bytes), error);
    return read_all(socket);
  }

  std::string get(const std::string& target, const std::string& method = "GET") {
    return ask(method + " " + target + " HTTP/1.1\r\nHost: x\r\n\r\n");
  }

  static void expect_begins(const std::string& answer, const std::string& status) {
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 " + status)) << answer.substr(0, 200);
  }

  /// Every rank reports three steps and ends.
  void train() {
    for (int rank = 0; rank < kRanks; ++rank) {
      AgentOptions options;
      options.port = coordinator_.port();
      options.rank = rank;
      options.ranks = kRanks;
      options.host = "host0";
      Agent agent(options, secret_);
      for (std::int64_t step = 0; step < 3; ++step) {
        agent.report(testing_job::report(shape_, rank, step));
      }
      EXPECT_TRUE(agent.finish(0, "trained", kPatience));
    }
  }

  JobSecret secret_ = JobSecret::random();
  JobShape shape_ = testing_job::shape(kRanks);
  FakeClock clock_;
  /// Of ranks that do not come: no test waits so long.
  static CoordinatorOptions patient() {
    CoordinatorOptions options;
    options.job.absent = Seconds{3600};
    return options;
  }
  Coordinator coordinator_{patient(), shape_, secret_};
  JobMonitor monitor_{MonitorOptions{{"0", 10}, Seconds{600}}, coordinator_, clock_};
  std::unique_ptr<MetricsServer> server_;
  asio::io_context io_;
};

TEST_F(MetricsServerTest, MetricsComeAsText) {
  serve();
  train();
  const std::string answer = get("/metrics");
  expect_begins(answer, "200 OK");
  for (const char* line :
       {"Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n",
        "# TYPE cartesian_reports_total counter\n", "\ncartesian_reports_total 6\n",
        "\ncartesian_tokens_total 603\n", "\ncartesian_step 2\n",
        "\ncartesian_ranks_by_health{health=\"finished\"} 2\n",
        "\ncartesian_step_seconds_bucket{le=\"+Inf\"} 6\n",
        "cartesian_expert_tokens_total{layer=\"0\",group=\"B\",expert=\"2\"} 30\n"}) {
    EXPECT_NE(answer.find(line), std::string::npos) << line;
  }
  EXPECT_EQ(answer.find("layer=\"1\",group=\"B\",expert"), std::string::npos);
  expect_begins(get("/metrics?name=x"), "200 OK");
}

TEST_F(MetricsServerTest, PromtoolFindsNothing) {
  if (std::system("command -v promtool >/dev/null 2>&1") != 0) {
    GTEST_SKIP() << "promtool is not installed";
  }
  serve();
  train();
  const Placement placement = Placement::linear({2, 2, 3, kRanks}, kRanks);
  monitor_.set_placement(placement, 0);
  const std::string answer = get("/metrics");
  const TemporaryDirectory directory;
  const std::string path = (directory.path() / "metrics.txt").string();
  std::ofstream(path) << answer.substr(answer.find("\r\n\r\n") + 4);
  EXPECT_EQ(std::system(("promtool check metrics <" + path).c_str()), 0);
}

TEST_F(MetricsServerTest, HealthIsOkUntilStepsStall) {
  serve();
  std::string answer = get("/healthz");
  expect_begins(answer, "200 OK");
  EXPECT_TRUE(answer.ends_with("\r\n\r\nok\n"));
  clock_.advance(Seconds{601});
  answer = get("/healthz");
  expect_begins(answer, "503 ");
  EXPECT_TRUE(answer.ends_with("\r\n\r\nno step has ended for 601 s; the last was -1\n")) << answer;
  train();
  clock_.advance(Seconds{601});
  expect_begins(get("/healthz"), "200 OK");  // all have finished
}

TEST_F(MetricsServerTest, HealthNamesLostRanks) {
  serve();
  {
    AgentOptions options;
    options.port = coordinator_.port();
    options.rank = 1;
    options.ranks = kRanks;
    options.host = "host0";
    const Agent agent(options, secret_);
    const SteadyClock clock;
    const Seconds limit = clock.now() + kPatience;
    while (!agent.status().registered && clock.now() < limit) {
      std::this_thread::yield();
    }
  }  // without a goodbye
  std::string answer;
  const SteadyClock clock;
  const Seconds limit = clock.now() + kPatience;
  while (!answer.starts_with("HTTP/1.1 503") && clock.now() < limit) {
    answer = get("/healthz");
  }
  EXPECT_NE(answer.find("rank 1 (host0) is lost: "), std::string::npos) << answer;
}

TEST_F(MetricsServerTest, HealthNamesRanksThatNeverCameAndThatFailed) {
  CoordinatorOptions impatient;
  impatient.job.absent = Seconds{-1};
  Coordinator coordinator(impatient, shape_, secret_);
  const JobMonitor monitor({}, coordinator, clock_);
  AgentOptions options;
  options.port = coordinator.port();
  options.rank = 1;
  options.ranks = kRanks;
  Agent agent(options, secret_);
  EXPECT_TRUE(agent.finish(1, "the loss is not finite", kPatience));
  EXPECT_EQ(monitor.troubles(), (std::vector<std::string>{
                                    "rank 1 (host0) is dead: exit code 1: the loss is not finite",
                                    "rank 0 (host0) is absent: it never came to the coordinator"}));
  EXPECT_NE(monitor.metrics_text().find("cartesian_ranks_by_health{health=\"dead\"} 1\n"),
            std::string::npos);
}

TEST_F(MetricsServerTest, PlacementsAreFilesWithAVersion) {
  serve();
  expect_begins(get("/placement.json"), "404 ");
  const Placement placement = Placement::linear({2, 2, 3, kRanks}, kRanks);
  monitor_.set_placement(placement, 4);
  const std::string answer = get("/placement.json");
  expect_begins(answer, "200 OK");
  EXPECT_NE(answer.find("Content-Type: application/json\r\n"), std::string::npos);
  EXPECT_TRUE(answer.ends_with(placement.to_json("{\"plan_version\": 4}")));
}

TEST_F(MetricsServerTest, OtherRequestsAreRefused) {
  serve();
  expect_begins(get("/"), "404 ");
  expect_begins(get("/metrics/x"), "404 ");
  for (const char* method : {"PUT", "DELETE", "OPTIONS"}) {
    const std::string answer = get("/metrics", method);
    expect_begins(answer, "405 ");
    EXPECT_NE(answer.find("Allow: GET, HEAD\r\n"), std::string::npos);
  }
  const std::string body(100'000, 'x');
  expect_begins(ask("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + body),
                "405 ");
  const std::string head = get("/healthz", "HEAD");
  expect_begins(head, "200 OK");
  EXPECT_TRUE(head.ends_with("\r\n\r\n"));
  EXPECT_NE(head.find("Content-Length: 3\r\n"), std::string::npos);
}

TEST_F(MetricsServerTest, WhatIsNoRequestIsRefused) {
  serve();
  expect_begins(ask("what\r\n\r\n"), "400 ");
  expect_begins(ask("GET /metrics HTTP/9.9\r\n\r\n"), "400 ");
  expect_begins(ask(std::string("\0\xff\r\n\r\n", 6)), "400 ");
  expect_begins(ask("GET /metrics HTTP/1.1\r\nX: " + std::string(20'000, 'x') + "\r\n\r\n"),
                "431 ");
  expect_begins(get("/healthz"), "200 OK");
}

TEST_F(MetricsServerTest, SlowClientsAreClosedOn) {
  MetricsServerOptions options;
  options.request = Seconds{0.2};
  serve(options);
  tcp::socket mute = connect();
  tcp::socket half = connect();
  asio::write(half, asio::buffer(std::string("GET /metrics HTT")));
  EXPECT_EQ(read_all(mute), "");
  EXPECT_EQ(read_all(half), "");
}

TEST_F(MetricsServerTest, TheOldestConnectionMakesRoom) {
  MetricsServerOptions options;
  options.connections = 4;
  options.request = Seconds{3600};
  serve(options);
  std::vector<tcp::socket> idle;
  for (int i = 0; i < 6; ++i) {
    idle.push_back(connect());
  }
  EXPECT_EQ(read_all(idle[0]), "");  // turned out: else this would take an hour
  EXPECT_EQ(read_all(idle[1]), "");
  asio::write(idle[5], asio::buffer(std::string("GET /healthz HTTP/1.1\r\n\r\n")));
  idle[5].shutdown(tcp::socket::shutdown_send);
  expect_begins(read_all(idle[5]), "200 OK");
}

TEST_F(MetricsServerTest, PlacesThatCannotBeAreNamed) {
  serve();
  MetricsServerOptions taken;
  taken.port = server_->port();
  expect_error<ConfigError>([&] { MetricsServer(taken, monitor_); },
                            {"127.0.0.1", std::to_string(taken.port), "in use"});
  MetricsServerOptions nowhere;
  nowhere.address = "nowhere";
  expect_error<ConfigError>([&] { MetricsServer(nowhere, monitor_); }, {"nowhere"});
}

}  // namespace
}  // namespace cartesian
