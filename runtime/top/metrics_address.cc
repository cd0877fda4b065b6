#include "runtime/top/metrics_address.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "base/error.h"
#include "base/json.h"
#include "runtime/train/metrics_endpoint.h"

namespace cartesian {

namespace {

void remove_suffix(std::string_view& text, std::string_view suffix) {
  if (text.ends_with(suffix)) {
    text.remove_suffix(suffix.size());
  }
}

}  // namespace

std::string MetricsAddress::text() const {
  return host.find(':') == std::string::npos ? fmt::format("{}:{}", host, port)
                                             : fmt::format("[{}]:{}", host, port);
}

std::optional<MetricsAddress> parse_metrics_address(std::string_view text) {
  constexpr std::string_view kScheme = "http://";
  if (text.starts_with(kScheme)) {
    text.remove_prefix(kScheme.size());
  }
  remove_suffix(text, "/");
  remove_suffix(text, "/metrics");
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) {
    return std::nullopt;
  }
  std::string_view host = text.substr(0, colon);
  const bool bracketed = host.size() > 2 && host.starts_with('[') && host.ends_with(']');
  if (bracketed) {
    host = host.substr(1, host.size() - 2);
  }
  const bool plain = std::ranges::all_of(host, [&](char c) {
    return c > ' ' && c < '\x7f' &&
           std::string_view("/?#@[]\\").find(c) == std::string_view::npos &&
           (c != ':' || bracketed);
  });
  std::uint16_t port = 0;
  const char* end = text.data() + text.size();
  const auto [next, error] = std::from_chars(text.data() + colon + 1, end, port);
  if (host.empty() || !plain || error != std::errc() || next != end || port == 0) {
    return std::nullopt;
  }
  return MetricsAddress{std::string(host), port};
}

MetricsTarget::MetricsTarget(FileSystem& files, const std::string& name)
    : files_(files), name_(name) {
  std::error_code ignored;
  if (std::filesystem::is_directory(name, ignored)) {
    return;
  }
  fixed_ = parse_metrics_address(name);
  if (!fixed_) {
    throw ConfigError(fmt::format(
        "{} is neither HOST:PORT nor a run directory: a run that serves metrics says its address "
        "when it starts, and keeps it in RUN/{}",
        quote(name), kMetricsAddressFile));
  }
}

std::optional<MetricsAddress> MetricsTarget::find() const {
  if (fixed_) {
    return fixed_;
  }
  const Path path = Path(name_) / kMetricsAddressFile;
  if (!files_.exists(path)) {
    return std::nullopt;
  }
  std::string text;
  try {
    text = files_.read(path);
  } catch (const FileError&) {
    if (!files_.exists(path)) {  // the run ended just now
      return std::nullopt;
    }
    throw;
  }
  while (text.ends_with('\n')) {
    text.pop_back();
  }
  std::optional<MetricsAddress> address = parse_metrics_address(text);
  if (!address) {
    throw FormatError(
        fmt::format("{} holds {}, which is no address of metrics", path.string(), quote(text)));
  }
  return address;
}

}  // namespace cartesian
