#include "scheduler/metrics_server.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <thread>
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

using Parser = http::request_parser<http::empty_body>;
using Response = http::response<http::string_body>;
using StreamPtr = std::shared_ptr<beast::tcp_stream>;

constexpr std::chrono::milliseconds kPause{100};
/// Of what a client sends beyond its header, before it is closed on.
constexpr std::size_t kMaxDrained = std::size_t{256} << 10;

Response make_response(http::status status, std::string body,
                       std::string_view type = "text/plain; charset=utf-8") {
  Response response(status, 11);
  response.set(http::field::content_type, beast::string_view(type.data(), type.size()));
  response.set(http::field::cache_control, "no-store");
  response.body() = std::move(body);
  response.keep_alive(false);
  response.prepare_payload();
  return response;
}

Response health(const JobMonitor& monitor) {
  const std::vector<std::string> troubles = monitor.troubles();
  if (troubles.empty()) {
    return make_response(http::status::ok, "ok\n");
  }
  return make_response(http::status::service_unavailable,
                       fmt::format("{}\n", fmt::join(troubles, "\n")));
}

Response placement(const JobMonitor& monitor) {
  std::optional<std::string> json = monitor.placement_json();
  if (!json) {
    return make_response(http::status::not_found, "the placement is not known yet\n");
  }
  return make_response(http::status::ok, std::move(*json), "application/json");
}

Response answer(const JobMonitor& monitor, http::verb method, std::string_view target) {
  if (method != http::verb::get && method != http::verb::head) {
    Response response = make_response(http::status::method_not_allowed, "only GET and HEAD\n");
    response.set(http::field::allow, "GET, HEAD");
    return response;
  }
  const std::string_view path = target.substr(0, target.find('?'));
  if (path == "/metrics") {
    return make_response(http::status::ok, monitor.metrics_text(),
                         "text/plain; version=0.0.4; charset=utf-8");
  }
  if (path == "/healthz") {
    return health(monitor);
  }
  if (path == "/placement.json") {
    return placement(monitor);
  }
  return make_response(http::status::not_found,
                       "there are /metrics, /healthz and /placement.json\n");
}

/// To a request that could not be read; nothing if there is nobody to tell.
std::optional<Response> refusal(const error_code& error) {
  if (error == http::error::header_limit) {
    return make_response(http::status::request_header_fields_too_large, "the header is too long\n");
  }
  if (error.category() == make_error_code(http::error::bad_method).category() &&
      error != http::error::end_of_stream && error != http::error::partial_message) {
    return make_response(http::status::bad_request, error.message() + "\n");
  }
  return std::nullopt;
}

}  // namespace

/// All but port() runs on thread_, which alone touches what is below.
class MetricsServer::Server {
 public:
  Server(MetricsServerOptions options, const JobMonitor& monitor)
      : options_(std::move(options)), monitor_(monitor), acceptor_(io_) {
    port_ = listen_at(acceptor_, options_.address, options_.port, "metrics cannot be served at");
    spawn(accept_all());
    thread_ = std::thread([this] { io_.run(); });
  }

  ~Server() {
    asio::post(io_, [this] {
      stopping_ = true;
      error_code ignored;
      acceptor_.close(ignored);
      for (const auto& [id, stream] : streams_) {
        stream->close();
      }
    });
    thread_.join();  // with every wait cancelled the coroutines end
  }

  std::uint16_t port() const { return port_; }

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
        asio::steady_timer pause(io_, kPause);
        co_await pause.async_wait(error_in(error));
        continue;
      }
      if (streams_.size() >= std::max<std::size_t>(1, options_.connections)) {
        streams_.begin()->second->close();  // ids rise: the first is the oldest
        streams_.erase(streams_.begin());
      }
      const std::uint64_t id = ++last_id_;
      auto stream = std::make_shared<beast::tcp_stream>(std::move(socket));
      streams_.emplace(id, stream);
      spawn(serve(id, std::move(stream)));
    }
  }

  awaitable<void> serve(std::uint64_t id, StreamPtr stream) {
    stream->expires_after(in_ns(options_.request));
    beast::flat_buffer buffer;
    Parser parser;
    parser.header_limit(static_cast<std::uint32_t>(options_.header));
    error_code error;
    co_await http::async_read_header(*stream, buffer, parser, error_in(error));
    std::optional<Response> response = error ? refusal(error) : respond(parser.get());
    if (response) {
      const bool body = error || parser.get().method() != http::verb::head;
      co_await write(*stream, *response, body);
    }
    stream->close();
    streams_.erase(id);
  }

  std::optional<Response> respond(const http::request<http::empty_body>& request) const {
    const auto target = request.target();
    try {
      return answer(monitor_, request.method(), {target.data(), target.size()});
    } catch (const std::exception& error) {
      return make_response(http::status::internal_server_error, std::string(error.what()) + "\n");
    }
  }

  /// Then takes what the client still sends: a connection that is closed on unread bytes is reset,
  /// and the answer may be lost.
  static awaitable<void> write(beast::tcp_stream& stream, Response& response, bool body) {
    error_code error;
    http::response_serializer<http::string_body> serializer(response);
    if (body) {
      co_await http::async_write(stream, serializer, error_in(error));
    } else {
      co_await http::async_write_header(stream, serializer, error_in(error));
    }
    if (error) {
      co_return;
    }
    stream.socket().shutdown(tcp::socket::shutdown_send, error);
    std::array<char, 4096> rest{};
    for (std::size_t drained = 0; !error && drained < kMaxDrained;) {
      drained += co_await stream.async_read_some(asio::buffer(rest), error_in(error));
    }
  }

  MetricsServerOptions options_;
  const JobMonitor& monitor_;
  asio::io_context io_{1};
  tcp::acceptor acceptor_;
  bool stopping_ = false;
  std::uint16_t port_ = 0;
  std::uint64_t last_id_ = 0;
  std::map<std::uint64_t, StreamPtr> streams_;
  std::thread thread_;
};

MetricsServer::MetricsServer(MetricsServerOptions options, const JobMonitor& monitor)
    : server_(std::make_unique<Server>(std::move(options), monitor)) {}
MetricsServer::~MetricsServer() = default;

std::uint16_t MetricsServer::port() const { return server_->port(); }

}  // namespace cartesian
