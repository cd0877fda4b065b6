#include "runtime/top/metrics_client.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>

#include "base/error.h"
#include "tests/runtime/top/one_answer.h"

namespace cartesian {
namespace {

constexpr Seconds kAges{600};
constexpr Seconds kSoon{0.05};

void expect_no_answer(OneAnswer& server, const std::string& why,
                      MetricsClientOptions options = {}) {
  MetricsClient client(options);
  try {
    client.get(server.address(), "/metrics");
    ADD_FAILURE() << "an answer where none was expected: " << why;
  } catch (const Error& error) {
    EXPECT_EQ(error.what(), "no answer from " + server.address().text() + ": " + why);
  }
}

TEST(MetricsClient, Asks) {
  OneAnswer server("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\na 1\n");
  MetricsClient client;
  EXPECT_EQ(client.get(server.address(), "/metrics"), "a 1\n");
  EXPECT_EQ(server.finish(), "GET /metrics HTTP/1.1\r\nHost: " + server.address().text() +
                                 "\r\nConnection: close\r\n\r\n");
}

TEST(MetricsClient, ByName) {
  OneAnswer server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  MetricsClient client;
  EXPECT_EQ(client.get({"localhost", server.address().port}, "/metrics"), "");
}

TEST(MetricsClient, NotFoundIsNoError) {
  OneAnswer server("HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnot\n");
  MetricsClient client;
  EXPECT_EQ(client.get(server.address(), "/placement.json"), std::nullopt);
}

TEST(MetricsClient, NobodyListens) {
  const MetricsAddress address = nobody();
  MetricsClient client;
  try {
    client.get(address, "/metrics");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.what(), "no answer from " + address.text() + ": connection refused");
  }
}

TEST(MetricsClient, AnswersThatAreNone) {
  const auto expect = [](const std::string& answer, const std::string& why) {
    OneAnswer server(answer);
    expect_no_answer(server, why);
  };
  expect("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", "/metrics gets status 500");
  expect("SSH-2.0-OpenSSH_9.2\r\n\r\n", "this is not HTTP");
  expect("", "it closed the connection");
  expect("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\na 1\n", "it closed the connection");
  expect("HTTP/1.1 200 OK\r\nX: " + std::string(10000, 'x') + "\r\n\r\n", "the answer is too long");
}

TEST(MetricsClient, BodyHasALimit) {
  for (const char* answer :
       {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\na 10\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\na 10\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\na 10\n"}) {
    OneAnswer server(answer);
    expect_no_answer(server, "the answer is too long", {.body_limit = 4});
    OneAnswer again(answer);
    EXPECT_EQ(MetricsClient({.body_limit = 5}).get(again.address(), "/metrics"), "a 10\n");
  }
}

TEST(MetricsClient, HasADeadline) {
  OneAnswer server("HTTP/1.1 200 OK\r\n", /*hold=*/true);
  expect_no_answer(server, "nothing came within 0.05 s", {.timeout = kSoon});
}

TEST(MetricsClient, IsCancelled) {
  OneAnswer server("HTTP/1.1 200 OK\r\n", /*hold=*/true);
  MetricsClient client({.timeout = kAges});
  std::thread other([&] { client.cancel(); });
  EXPECT_THROW(client.get(server.address(), "/metrics"), Error);
  other.join();
  EXPECT_THROW(client.get(server.address(), "/metrics"), Error);
}

}  // namespace
}  // namespace cartesian
