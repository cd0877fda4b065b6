#include "runtime/data/token_windows.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "base/error.h"

namespace cartesian {

TokenWindows::TokenWindows(const TokenFile& data, std::int64_t length, std::string_view key)
    : data_(data), length_(length) {
  check(length >= 1, "a window has at least one token");
  if (data.tokens() - 1 < length) {
    throw ConfigError(fmt::format("{} has {} tokens, but {} = {} needs at least {}",
                                  token_data_path(data.prefix()).string(), data.tokens(), key,
                                  length, length + 1));
  }
}

void TokenWindows::read(std::int64_t window, std::span<std::int32_t> ids,
                        std::span<std::int32_t> targets) const {
  const auto size = static_cast<std::size_t>(length_);
  check(window >= 0 && window < count(), "window out of range");
  check(ids.size() == size && targets.size() == size, "a window's buffers have its length");
  const std::int64_t begin = window * length_;
  data_.read(begin, ids);
  std::copy(ids.begin() + 1, ids.end(), targets.begin());
  data_.read(begin + length_, targets.last(1));
}

void TokenWindows::read_document_starts(std::int64_t window, std::span<std::int32_t> starts) const {
  check(window >= 0 && window < count(), "window out of range");
  check(starts.size() == static_cast<std::size_t>(length_), "a window's buffers have its length");
  data_.document_starts(window * length_, starts);
}

}  // namespace cartesian
