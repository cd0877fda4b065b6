// Pushes over loopback to a gateway of the test's own. Every wait has a deadline.

#include "scheduler/metrics_pusher.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <future>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <utility>

#include "base/error.h"
#include "scheduler/asio_internal.h"
#include "tests/scheduler/sample_job.h"
#include "tests/support/expect_error.h"
// Beast needs Asio as it is included above.
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>

namespace cartesian {
namespace {

namespace http = boost::beast::http;
constexpr Seconds kPatience{30};
constexpr Seconds kHour{3600};

/// Answers each of `statuses` to one request, and keeps the requests.
class Gateway {
 public:
  explicit Gateway(std::vector<unsigned> statuses)
      : acceptor_(io_, tcp::endpoint(asio::ip::make_address("127.0.0.1"), 0)),
        thread_([this, statuses = std::move(statuses)] { answer(statuses); }) {}
  ~Gateway() { join(); }

  std::string url() const {
    return "http://127.0.0.1:" + std::to_string(acceptor_.local_endpoint().port());
  }
  /// After as many as there are statuses.
  const std::vector<http::request<http::string_body>>& requests() {
    join();
    return requests_;
  }

 private:
  void answer(const std::vector<unsigned>& statuses) {
    for (const unsigned status : statuses) {
      tcp::socket socket = acceptor_.accept();
      boost::beast::flat_buffer buffer;
      http::read(socket, buffer, requests_.emplace_back());
      http::response<http::string_body> response(http::int_to_status(status), 11);
      response.prepare_payload();
      http::write(socket, response);
    }
  }
  void join() {
    if (thread_.joinable()) {
      thread_.join();
    }
  }

  asio::io_context io_{1};
  tcp::acceptor acceptor_;
  std::vector<http::request<http::string_body>> requests_;
  std::thread thread_;
};

class MetricsPusherTest : public ::testing::Test {
 protected:
  std::unique_ptr<MetricsPusher> pusher(const PusherOptions& options) {
    return std::make_unique<MetricsPusher>(options, monitor_, [this](const std::string& trouble) {
      const std::lock_guard lock(mutex_);
      told_.push_back(trouble);
    });
  }
  std::vector<std::string> told() {
    const std::lock_guard lock(mutex_);
    return told_;
  }
  static void await_failures(const MetricsPusher& pusher, std::int64_t count) {
    const SteadyClock clock;
    const Seconds limit = clock.now() + kPatience;
    while (pusher.status().failed < count && clock.now() < limit) {
      std::this_thread::yield();
    }
    EXPECT_GE(pusher.status().failed, count);
  }

  JobSecret secret_ = JobSecret::random();
  FakeClock clock_;
  Coordinator coordinator_{CoordinatorOptions{}, testing_job::shape(2), secret_};
  JobMonitor monitor_{MonitorOptions{}, coordinator_, clock_};
  std::mutex mutex_;
  std::vector<std::string> told_;  // guarded by mutex_
};

TEST_F(MetricsPusherTest, PushesTheSameTextAtTheEnd) {
  Gateway gateway({202});
  const auto pusher = this->pusher({gateway.url() + "/prefix/", "run-1.a", kHour});
  EXPECT_TRUE(pusher->finish(kPatience));
  ASSERT_EQ(gateway.requests().size(), 1U);
  const auto& request = gateway.requests()[0];
  EXPECT_EQ(request.method(), http::verb::put);
  EXPECT_EQ(request.target(), "/prefix/metrics/job/run-1.a");
  EXPECT_EQ("http://" + std::string(request[http::field::host]), gateway.url());
  EXPECT_EQ(request.body(), monitor_.metrics_text());
  EXPECT_EQ(pusher->status().pushed, 1);
  EXPECT_TRUE(told().empty());
}

TEST_F(MetricsPusherTest, PushesAgainAndAgain) {
  Gateway gateway({200, 200, 200});
  const auto pusher = this->pusher({gateway.url(), "cartesian", Seconds{0.01}});
  EXPECT_EQ(gateway.requests().size(), 3U);
}

TEST_F(MetricsPusherTest, TroublesAreCountedAndToldOnceAKind) {
  Gateway gateway({500, 500, 404, 500});
  const auto pusher = this->pusher({gateway.url(), "cartesian", Seconds{0.01}});
  await_failures(*pusher, 4);
  const auto sentences = told();
  ASSERT_GE(sentences.size(), 2U);
  EXPECT_EQ(sentences[0], "metrics cannot be pushed to " + gateway.url() + ": it answers 500");
  EXPECT_EQ(sentences[1], "metrics cannot be pushed to " + gateway.url() + ": it answers 404");
  EXPECT_EQ(std::ranges::count(sentences, sentences[0]), 1);
}

TEST_F(MetricsPusherTest, AGatewayThatIsAwayCostsNothing) {
  std::string url;
  { url = Gateway({}).url(); }  // nobody listens there now
  const auto pusher = this->pusher({url, "cartesian", kHour});
  EXPECT_FALSE(pusher->finish(kPatience));
  EXPECT_NE(pusher->status().trouble.find(url + ": no connection: "), std::string::npos);
}

TEST_F(MetricsPusherTest, AMuteGatewayRunsIntoTheDeadline) {
  asio::io_context io;
  const tcp::acceptor mute(io, tcp::endpoint(asio::ip::make_address("127.0.0.1"), 0));
  const std::string url = "http://127.0.0.1:" + std::to_string(mute.local_endpoint().port());
  const auto pusher = this->pusher({url, "cartesian", kHour, Seconds{0.1}});
  EXPECT_FALSE(pusher->finish(kPatience));
  EXPECT_NE(pusher->status().trouble.find("no answer"), std::string::npos);
  const auto stuck = this->pusher({url, "cartesian", kHour, kHour});
  EXPECT_FALSE(stuck->finish(Seconds{0.01}));  // and its end waits for nothing
}

TEST_F(MetricsPusherTest, RunsOfOneJobAreGroupsOfTheirOwn) {
  // Three lengths, for base64's three cases; "?" and ">" are in the digits that URLs differ in.
  const std::vector<std::pair<std::string, std::string>> runs = {
      {"runs/a", "cnVucy9h"}, {"runs/a?", "cnVucy9hPw"}, {"runs/~~>", "cnVucy9-fj4"}};
  for (const auto& [run, encoded] : runs) {
    Gateway gateway({200});
    PusherOptions options{gateway.url(), "cartesian", kHour};
    options.run = run;
    EXPECT_TRUE(pusher(options)->finish(kPatience));
    EXPECT_EQ(gateway.requests()[0].target(), "/metrics/job/cartesian/run@base64/" + encoded);
  }
}

TEST_F(MetricsPusherTest, NamesAreLookedUp) {
  Gateway gateway({200});
  const std::string port = gateway.url().substr(gateway.url().rfind(':'));
  PusherOptions options{"http://gateway" + port, "cartesian", kHour};
  std::string asked;
  options.resolver = [&](const std::string& host) {
    asked = host;
    return std::vector<std::string>{"127.0.0.1"};
  };
  EXPECT_TRUE(pusher(options)->finish(kPatience));
  EXPECT_EQ(asked, "gateway");
  EXPECT_EQ(gateway.requests()[0][http::field::host], "gateway" + port);
  options.resolver = [](const std::string&) -> std::vector<std::string> {
    throw std::runtime_error("no such host");
  };
  const auto nowhere = pusher(options);
  EXPECT_FALSE(nowhere->finish(kPatience));
  EXPECT_NE(nowhere->status().trouble.find("its host: no such host"), std::string::npos);
  EXPECT_FALSE(resolve_host("localhost").empty());
}

TEST_F(MetricsPusherTest, AResolverThatHangsIsNotWaitedFor) {
  std::promise<void> released;
  PusherOptions options{"http://gateway", "cartesian", kHour, Seconds{0.1}};
  options.resolver = [gate = released.get_future().share()](const std::string&) {
    gate.wait();
    return std::vector<std::string>{};
  };
  auto pusher = this->pusher(options);
  EXPECT_FALSE(pusher->finish(kPatience));
  EXPECT_NE(pusher->status().trouble.find("its host: not found within 0.1 s"), std::string::npos);
  options.timeout = kHour;
  pusher = this->pusher(options);
  EXPECT_FALSE(pusher->finish(Seconds{0.01}));
  pusher.reset();  // else this would take an hour
  released.set_value();
}

TEST_F(MetricsPusherTest, SettingsAreChecked) {
  for (const char* url : {"", "https://a", "a:9091", "http://", "http://:1",
                          "http://a:", "http://a:x", "http://a:0", "http://a:70000", "http://[::1",
                          "http://u@a", "http://a/?b", "http://a b", "http://[::1]9"}) {
    expect_error<ConfigError>([&] { pusher({url}); }, {"metrics.push_url", url});
  }
  for (const char* job : {"", "a/b", "a b", "\xc3\xa9"}) {
    expect_error<ConfigError>([&] { pusher({"http://a", job}); }, {"metrics.job"});
  }
  for (const double every : {0.0, -1.0, std::nan("")}) {
    expect_error<ConfigError>(
        [&] {
          pusher({"http://a", "j", Seconds{every}});
        },
        {"metrics.push_every_s"});
  }
}

}  // namespace
}  // namespace cartesian
