#include "runtime/top/metrics_client.h"

#include <fmt/format.h>

#include <atomic>
#include <map>
#include <utility>

#include "base/error.h"
#include "scheduler/asio_internal.h"
// Beast needs Asio as it is included above.
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>

namespace cartesian {

namespace {

namespace beast = boost::beast;
namespace http = beast::http;

constexpr std::uint32_t kHeaderLimit = 8192;

using Answer = http::response_parser<http::string_body>;

}  // namespace

/// All but cancel() belongs to the thread that calls get().
class MetricsClient::Connection {
 public:
  explicit Connection(MetricsClientOptions options) : options_(options), stream_(io_) {}

  std::optional<std::string> get(const MetricsAddress& address, const std::string& path) {
    error_code error;
    Answer answer;
    answer.body_limit(options_.body_limit);
    answer.header_limit(kHeaderLimit);
    const Endpoints endpoints = find(address, error);
    if (!error) {
      asio::co_spawn(io_, exchange(endpoints, request(address, path), answer, error),
                     asio::detached);
      io_.restart();
      io_.run();
    }
    if (cancelled_) {
      throw Error("cancelled");
    }
    if (error) {
      throw Error(fmt::format("no answer from {}: {}", address.text(), reason(error)));
    }
    const unsigned status = answer.get().result_int();
    if (status == 404) {
      return std::nullopt;
    }
    if (status != 200) {
      throw Error(
          fmt::format("no answer from {}: {} gets status {}", address.text(), path, status));
    }
    return std::move(answer.get().body());
  }

  void cancel() {
    cancelled_ = true;
    asio::post(io_, [this] { stream_.close(); });
  }

 private:
  using Endpoints = std::vector<tcp::endpoint>;
  using Request = http::request<http::empty_body>;

  /// A host's name is looked up once: the lookup has no deadline.
  Endpoints find(const MetricsAddress& address, error_code& error) {
    const auto known = known_.find(address.host);
    std::vector<asio::ip::address> hosts;
    if (known != known_.end()) {
      hosts = known->second;
    } else if (const auto numeric = asio::ip::make_address(address.host, error); !error) {
      hosts = {numeric};
    } else {
      tcp::resolver resolver(io_);
      for (const auto& entry : resolver.resolve(address.host, "", error)) {
        hosts.push_back(entry.endpoint().address());
      }
    }
    Endpoints endpoints;
    if (!error) {
      known_[address.host] = hosts;
      for (const auto& host : hosts) {
        endpoints.emplace_back(host, address.port);
      }
    }
    return endpoints;
  }

  static Request request(const MetricsAddress& address, const std::string& path) {
    Request request(http::verb::get, path, 11);
    request.set(http::field::host, address.text());
    request.keep_alive(false);
    return request;
  }

  awaitable<void> exchange(Endpoints endpoints, Request request, Answer& answer,
                           error_code& error) {
    stream_.expires_after(in_ns(options_.timeout));
    if (!cancelled_) {
      co_await stream_.async_connect(endpoints, error_in(error));
    }
    if (!error) {
      co_await http::async_write(stream_, request, error_in(error));
    }
    beast::flat_buffer buffer;
    if (!error) {
      co_await http::async_read_header(stream_, buffer, answer, error_in(error));
    }
    // Beast 1.74 minds its limit only where the answer does not say its length.
    if (!error && answer.content_length().value_or(0) > options_.body_limit) {
      error = http::error::body_limit;
    }
    if (!error) {
      co_await http::async_read(stream_, buffer, answer, error_in(error));
    }
    stream_.close();
  }

  std::string reason(const error_code& error) const {
    if (error == beast::error::timeout) {
      return fmt::format("nothing came within {:g} s", options_.timeout.count());
    }
    if (error == http::error::end_of_stream || error == http::error::partial_message) {
      return "it closed the connection";
    }
    if (error == http::error::body_limit || error == http::error::header_limit) {
      return "the answer is too long";
    }
    if (error.category() == make_error_code(http::error::bad_method).category()) {
      return "this is not HTTP";
    }
    std::string text = error.message();
    for (char& c : text) {
      c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
    }
    return text;
  }

  const MetricsClientOptions options_;
  asio::io_context io_{1};
  beast::tcp_stream stream_;
  std::map<std::string, std::vector<asio::ip::address>> known_;
  std::atomic<bool> cancelled_ = false;
};

MetricsClient::MetricsClient(MetricsClientOptions options)
    : connection_(std::make_unique<Connection>(options)) {}
MetricsClient::~MetricsClient() = default;

std::optional<std::string> MetricsClient::get(const MetricsAddress& address,
                                              const std::string& path) {
  return connection_->get(address, path);
}

void MetricsClient::cancel() { connection_->cancel(); }

}  // namespace cartesian
