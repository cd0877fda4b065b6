#pragma once
// TokenWindows: a token file as training sequences of a fixed length.

#include <cstdint>
#include <span>
#include <string_view>

#include "runtime/data/token_file.h"

namespace cartesian {

/// Window w of length T covers tokens [w T, w T + T]: T inputs, and as targets the token after
/// each. Windows overlap by one token, so that every token but the first is a target once; a rest
/// that is too short for a window is left out. Immutable, thread-safe.
class TokenWindows {
 public:
  /// `data` must outlive this. Throws ConfigError, naming file, counts and `key`, which says how
  /// long windows are, if it has fewer than length + 1 tokens. REQUIRES: length >= 1.
  TokenWindows(const TokenFile& data, std::int64_t length,
               std::string_view key = "train.sequence_length");

  std::int64_t length() const { return length_; }
  std::int64_t count() const { return (data_.tokens() - 1) / length_; }

  /// Writes window number `window`. REQUIRES: ids and targets have length() elements.
  void read(std::int64_t window, std::span<std::int32_t> ids,
            std::span<std::int32_t> targets) const;
  /// Writes where the document of each input of window number `window` begins within the window.
  void read_document_starts(std::int64_t window, std::span<std::int32_t> starts) const;

 private:
  const TokenFile& data_;
  std::int64_t length_;
};

}  // namespace cartesian
