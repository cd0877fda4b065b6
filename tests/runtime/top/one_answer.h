#pragma once
// OneAnswer: a server that answers once, for tests of what asks.

#include <array>
#include <string>
#include <thread>
#include <utility>

#include "runtime/top/metrics_address.h"
#include "scheduler/asio_internal.h"

namespace cartesian {

/// Takes one connection, reads its request, sends `answer`, and closes unless it is to `hold`.
class OneAnswer {
 public:
  explicit OneAnswer(std::string answer, bool hold = false) {
    address_.port = listen_at(acceptor_, address_.host, 0, "cannot listen at");
    thread_ = std::thread([this, hold, answer = std::move(answer)] {
      error_code error;
      tcp::socket socket = acceptor_.accept(error);
      std::array<char, 4096> bytes{};
      while (!error && request_.find("\r\n\r\n") == std::string::npos) {
        request_.append(bytes.data(), socket.read_some(asio::buffer(bytes), error));
      }
      asio::write(socket, asio::buffer(answer), error);
      while (hold && !error) {
        socket.read_some(asio::buffer(bytes), error);
      }
    });
  }
  ~OneAnswer() { finish(); }

  const MetricsAddress& address() const { return address_; }
  /// The request; after this nothing is waited for.
  const std::string& finish() {
    if (thread_.joinable()) {
      error_code ignored;  // where nobody has come, this is the connection
      tcp::socket(io_).connect({asio::ip::make_address(address_.host), address_.port}, ignored);
      thread_.join();
    }
    return request_;
  }

 private:
  asio::io_context io_;
  tcp::acceptor acceptor_{io_};
  MetricsAddress address_{"127.0.0.1", 0};
  std::string request_;
  std::thread thread_;
};

/// Where nobody listens.
inline MetricsAddress nobody() {
  asio::io_context io;
  tcp::acceptor acceptor(io);
  return {"127.0.0.1", listen_at(acceptor, "127.0.0.1", 0, "cannot listen at")};
}

}  // namespace cartesian
