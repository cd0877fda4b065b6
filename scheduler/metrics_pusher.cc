#include "scheduler/metrics_pusher.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <set>
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

constexpr Seconds kForever{1e6};
constexpr std::size_t kMaxAnswer = std::size_t{64} << 10;

struct Target {
  std::string host;
  std::string port = "80";
  std::string authority;  // as in the URL
  std::string path;
};

/// The rest of a URL after http://; nothing if it is none.
std::optional<Target> parse_target(std::string_view rest) {
  Target target;
  const std::size_t slash = std::min(rest.find('/'), rest.size());
  std::string_view authority = rest.substr(0, slash);
  target.authority = authority;
  target.path = rest.substr(slash);
  while (target.path.ends_with('/')) {
    target.path.pop_back();
  }
  const bool bracketed = authority.starts_with('[');  // IPv6
  const std::size_t host_end =
      bracketed ? authority.find(']') : std::min(authority.find(':'), authority.size());
  if (host_end == std::string_view::npos) {
    return std::nullopt;
  }
  target.host = authority.substr(bracketed ? 1 : 0, host_end - (bracketed ? 1 : 0));
  authority.remove_prefix(host_end + (bracketed ? 1 : 0));
  if (!authority.empty()) {
    std::uint16_t port = 0;
    const char* end = authority.data() + authority.size();
    const auto [next, error] = std::from_chars(authority.data() + 1, end, port);
    if (authority.front() != ':' || error != std::errc() || next != end || port == 0) {
      return std::nullopt;
    }
    target.port = std::to_string(port);
  }
  const bool printable = std::ranges::all_of(
      rest, [](char c) { return c > ' ' && c < '\x7f' && c != '@' && c != '?' && c != '#'; });
  return printable && !target.host.empty() ? std::optional(target) : std::nullopt;
}

Target check_options(const PusherOptions& options) {
  constexpr std::string_view kScheme = "http://";
  std::optional<Target> target;
  if (options.url.starts_with(kScheme)) {
    target = parse_target(std::string_view(options.url).substr(kScheme.size()));
  }
  if (!target) {
    throw ConfigError(
        fmt::format("metrics.push_url is '{}'; it is http://HOST[:PORT][/PATH]", options.url));
  }
  const auto allowed = [](unsigned char c) {
    return c < 0x80 && (std::isalnum(c) != 0 || c == '_' || c == '.' || c == '-');
  };
  if (options.job.empty() || !std::ranges::all_of(options.job, allowed)) {
    throw ConfigError(fmt::format(
        "metrics.job is '{}'; it is made of letters, digits, '_', '.' and '-'", options.job));
  }
  if (!(options.every.count() > 0 && options.every < kForever)) {
    throw ConfigError(
        fmt::format("metrics.push_every_s is {}; it is above 0", options.every.count()));
  }
  target->path += "/metrics/job/" + options.job;
  return *target;
}

}  // namespace

/// All but the functions under "any thread" runs on thread_.
class MetricsPusher::Client {
 public:
  Client(PusherOptions options, const JobMonitor& monitor,
         std::function<void(const std::string&)> tell)
      : options_(std::move(options)),
        target_(check_options(options_)),
        monitor_(monitor),
        tell_(std::move(tell)),
        timer_(io_),
        resolver_(io_),
        stream_(io_) {
    asio::co_spawn(io_, push_for_ever(), asio::detached);
    thread_ = std::thread([this] { io_.run(); });
  }

  ~Client() {
    asio::post(io_, [this] {
      stopping_ = true;
      timer_.cancel();
      resolver_.cancel();
      stream_.close();
    });
    thread_.join();  // with every wait cancelled the coroutine ends
  }

  // Any thread.
  PushStatus status() const {
    const std::lock_guard lock(mutex_);
    return status_;
  }

  bool finish(Seconds timeout) {
    asio::post(io_, [this] {
      finishing_ = true;
      timer_.cancel();
    });
    std::unique_lock lock(mutex_);
    finished_.wait_for(lock, std::min(timeout, kForever), [&] { return over_; });
    return over_ && status_.trouble.empty();
  }

 private:
  awaitable<void> push_for_ever() {
    for (bool last = false; !last && !stopping_;) {
      error_code ignored;
      if (!finishing_) {
        timer_.expires_after(in_ns(options_.every));
        co_await timer_.async_wait(error_in(ignored));
      }
      last = finishing_;
      if (stopping_) {
        co_return;
      }
      note(co_await push(), last);
    }
  }

  /// Returns what is wrong; empty if it was taken.
  awaitable<std::string> push() {
    const auto failed = [&](std::string_view what, const error_code& error) {
      return fmt::format("metrics cannot be pushed to {}: {}: {}", options_.url, what,
                         error.message());
    };
    error_code error;
    const auto endpoints =
        co_await resolver_.async_resolve(target_.host, target_.port, error_in(error));
    if (error || stopping_) {
      co_return failed("its host", error);
    }
    stream_.expires_after(in_ns(options_.timeout));
    co_await stream_.async_connect(endpoints, error_in(error));
    if (error) {
      co_return failed("no connection", error);
    }
    http::request<http::string_body> request(http::verb::put, target_.path, 11);
    request.set(http::field::host, target_.authority);
    request.set(http::field::content_type, "text/plain; version=0.0.4; charset=utf-8");
    request.keep_alive(false);
    request.body() = monitor_.metrics_text();
    request.prepare_payload();
    co_await http::async_write(stream_, request, error_in(error));
    beast::flat_buffer buffer;
    http::response_parser<http::string_body> answer;
    answer.body_limit(kMaxAnswer);
    if (!error) {
      co_await http::async_read(stream_, buffer, answer, error_in(error));
    }
    stream_.close();
    if (error) {
      co_return failed("no answer", error);
    }
    const unsigned status = answer.get().result_int();
    co_return status / 100 == 2
        ? ""
        : fmt::format("metrics cannot be pushed to {}: it answers {}", options_.url, status);
  }

  void note(std::string trouble, bool last) {
    if (!trouble.empty() && told_.insert(trouble).second && tell_ != nullptr) {
      tell_(trouble);
    }
    const std::lock_guard lock(mutex_);
    ++(trouble.empty() ? status_.pushed : status_.failed);
    status_.trouble = std::move(trouble);
    over_ = last;
    finished_.notify_all();
  }

  PusherOptions options_;
  Target target_;
  const JobMonitor& monitor_;
  std::function<void(const std::string&)> tell_;
  asio::io_context io_{1};
  asio::steady_timer timer_;
  tcp::resolver resolver_;
  beast::tcp_stream stream_;
  std::set<std::string> told_;
  bool stopping_ = false;
  bool finishing_ = false;

  mutable std::mutex mutex_;
  std::condition_variable finished_;
  PushStatus status_;  // guarded by mutex_
  bool over_ = false;  // guarded by mutex_; the last push is done
  std::thread thread_;
};

MetricsPusher::MetricsPusher(PusherOptions options, const JobMonitor& monitor,
                             std::function<void(const std::string&)> tell)
    : client_(std::make_unique<Client>(std::move(options), monitor, std::move(tell))) {}
MetricsPusher::~MetricsPusher() = default;

PushStatus MetricsPusher::status() const { return client_->status(); }
bool MetricsPusher::finish(Seconds timeout) { return client_->finish(timeout); }

}  // namespace cartesian
