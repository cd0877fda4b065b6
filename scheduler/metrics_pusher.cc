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
constexpr Seconds kBetweenLooks{0.02};
constexpr std::size_t kMaxAnswer = std::size_t{64} << 10;

struct Target {
  std::string host;
  std::uint16_t port = 80;
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
    target.port = 0;
    const char* end = authority.data() + authority.size();
    const auto [next, error] = std::from_chars(authority.data() + 1, end, target.port);
    if (authority.front() != ':' || error != std::errc() || next != end || target.port == 0) {
      return std::nullopt;
    }
  }
  const bool printable = std::ranges::all_of(
      rest, [](char c) { return c > ' ' && c < '\x7f' && c != '@' && c != '?' && c != '#'; });
  return printable && !target.host.empty() ? std::optional(target) : std::nullopt;
}

/// For URLs (RFC 4648, section 5), without padding.
std::string base64(std::string_view bytes) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  std::string text;
  std::uint32_t bits = 0;
  int pending = 0;  // of bits
  for (const unsigned char byte : bytes) {
    bits = (bits << 8) | byte;
    pending += 8;
    for (; pending >= 6; pending -= 6) {
      text += kDigits[(bits >> (pending - 6)) & 63];
    }
  }
  if (pending > 0) {
    text += kDigits[(bits << (6 - pending)) & 63];
  }
  return text;
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
  if (!options.run.empty()) {  // any text: this is how Pushgateway takes it
    target->path += "/run@base64/" + base64(options.run);
  }
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
        stream_(io_) {
    asio::co_spawn(io_, push_for_ever(), asio::detached);
    thread_ = std::thread([this] { io_.run(); });
  }

  ~Client() {
    asio::post(io_, [this] {
      stopping_ = true;
      timer_.cancel();
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

  /// Where to push to; none, and why, if that is not known within the time of a push.
  awaitable<std::vector<tcp::endpoint>> find_host(std::string& trouble) {
    error_code ignored;
    if (const auto address = asio::ip::make_address(target_.host, ignored); !ignored) {
      co_return std::vector<tcp::endpoint>{{address, target_.port}};
    }
    if (!lookup_) {
      lookup_.emplace(target_.host, options_.resolver);
    }
    const Seconds deadline = clock_.now() + options_.timeout;
    std::optional<HostAddresses> found = lookup_->result();
    for (; !found && !stopping_ && clock_.now() < deadline; found = lookup_->result()) {
      timer_.expires_after(in_ns(kBetweenLooks));
      co_await timer_.async_wait(error_in(ignored));
    }
    std::vector<tcp::endpoint> endpoints;
    if (!found) {
      trouble = fmt::format("not found within {:g} s", options_.timeout.count());
      co_return endpoints;
    }
    lookup_.reset();  // names may move: the next push asks anew
    for (const std::string& text : found->numeric) {
      if (const auto address = asio::ip::make_address(text, ignored); !ignored) {
        endpoints.emplace_back(address, target_.port);
      }
    }
    trouble = endpoints.empty() && found->trouble.empty() ? "it has no address" : found->trouble;
    co_return endpoints;
  }

  /// Returns what is wrong; empty if it was taken.
  awaitable<std::string> push() {
    const auto failed = [&](std::string_view what, const error_code& error) {
      return fmt::format("metrics cannot be pushed to {}: {}: {}", options_.url, what,
                         error.message());
    };
    error_code error;
    std::string trouble;
    const auto endpoints = co_await find_host(trouble);
    if (endpoints.empty() || stopping_) {
      co_return fmt::format("metrics cannot be pushed to {}: its host: {}", options_.url, trouble);
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
  SteadyClock clock_;
  asio::io_context io_{1};
  asio::steady_timer timer_;
  std::optional<HostLookup> lookup_;  // one at a time: a resolver that hangs costs one thread
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
