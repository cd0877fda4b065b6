#include "runtime/data/token_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <ranges>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/hash.h"
#include "runtime/data/token_file_layout.h"

namespace cartesian {

namespace layout = token_file_layout;

namespace {

/// The value at any address, aligned or not.
template <class T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

/// Calls visit(T()) with the C++ type of the tokens.
template <class Visit>
auto with_type(TokenType type, Visit visit) {
  switch (type) {
    case TokenType::u8:
      return visit(std::uint8_t());
    case TokenType::i16:
      return visit(std::int16_t());
    case TokenType::i32:
      return visit(std::int32_t());
    case TokenType::i64:
      return visit(std::int64_t());
    case TokenType::u16:
      return visit(std::uint16_t());
  }
  fail_check("unknown token type", std::source_location::current());
}

bool is_known(TokenType type) {
  constexpr std::array kKnown = {TokenType::u8, TokenType::i16, TokenType::i32, TokenType::i64,
                                 TokenType::u16};
  return std::find(kKnown.begin(), kKnown.end(), type) != kKnown.end();
}

}  // namespace

std::size_t size_of(TokenType type) {
  return with_type(type, [](auto token) { return sizeof(token); });
}

Path token_data_path(const Path& prefix) {
  Path path = prefix;
  return path += ".bin";
}

Path token_index_path(const Path& prefix) {
  Path path = prefix;
  return path += ".idx";
}

TokenFile::TokenFile(FileSystem& files, Path prefix)
    : prefix_(std::move(prefix)),
      data_(files.map(token_data_path(prefix_))),
      index_(files.map(token_index_path(prefix_))) {
  read_header();
  check_sequences();
  check_documents();
}

void TokenFile::read_header() {
  const auto index = index_->bytes();
  if (index.size() < layout::kHeaderBytes) {
    fail_index(fmt::format("{} bytes are too few for an index", index.size()));
  }
  if (std::memcmp(index.data(), layout::kMagic.data(), layout::kMagic.size()) != 0) {
    fail_index("it does not begin with MMIDIDX: not a Megatron index");
  }
  const auto version = load<std::uint64_t>(index.data() + layout::kVersionAt);
  if (version != layout::kVersion) {
    fail_index(
        fmt::format("version {} is not known; this build reads {}", version, layout::kVersion));
  }
  type_ = load<TokenType>(index.data() + layout::kTypeAt);
  if (!is_known(type_)) {
    fail_index(
        fmt::format("token type {} is not one of 1, 3, 4, 5 and 8", static_cast<int>(type_)));
  }
  const auto sequences = load<std::uint64_t>(index.data() + layout::kSequencesAt);
  const auto bounds = load<std::uint64_t>(index.data() + layout::kBoundsAt);
  // Divisions, so that no count can overflow.
  const std::uint64_t room = index.size() - layout::kHeaderBytes;
  if (sequences > room / layout::kSequenceBytes ||
      bounds > (room - sequences * layout::kSequenceBytes) / layout::kBoundBytes) {
    fail_index(fmt::format("{} sequences and {} document bounds do not fit its {} bytes", sequences,
                           bounds, index.size()));
  }
  const std::uint64_t rest =
      room - sequences * layout::kSequenceBytes - bounds * layout::kBoundBytes;
  if (rest != 0) {
    fail_index(fmt::format("{} bytes follow the last document bound", rest));
  }
  if (bounds == 0) {
    fail_index("there are no document bounds");
  }
  sequences_ = static_cast<std::int64_t>(sequences);
  bounds_ = static_cast<std::int64_t>(bounds);
  tokens_ = static_cast<std::int64_t>(data_->bytes().size() / size_of(type_));
}

void TokenFile::check_sequences() const {
  const std::byte* lengths = index_->bytes().data() + layout::kHeaderBytes;
  const std::byte* offsets = lengths + sequences_ * static_cast<std::int64_t>(sizeof(std::int32_t));
  const auto token_bytes = static_cast<std::int64_t>(size_of(type_));
  const auto data_bytes = static_cast<std::int64_t>(data_->bytes().size());
  std::int64_t end = 0;  // at most data_bytes, so nothing below overflows
  for (std::int64_t i = 0; i < sequences_; ++i) {
    const auto length = load<std::int32_t>(lengths + i * 4);
    const auto offset = load<std::int64_t>(offsets + i * 8);
    if (length < 0) {
      fail_index(fmt::format("the length of sequence {} is {}", i, length));
    }
    if (offset != end) {
      fail_index(
          fmt::format("sequence {} begins at byte {} instead of {}, where the one before it "
                      "ends",
                      i, offset, end));
    }
    if (length > (data_bytes - end) / token_bytes) {
      fail_index(fmt::format("sequence {} of {} tokens reaches beyond the {} bytes of {}", i,
                             length, data_bytes, token_data_path(prefix_).string()));
    }
    end += length * token_bytes;
  }
  if (end != data_bytes) {
    throw FormatError(fmt::format("{} has {} bytes, but its index {} describes {}",
                                  token_data_path(prefix_).string(), data_bytes,
                                  token_index_path(prefix_).string(), end));
  }
}

void TokenFile::check_documents() const {
  const std::byte* bounds = index_->bytes().data() + layout::kHeaderBytes +
                            sequences_ * std::int64_t{layout::kSequenceBytes};
  std::int64_t last = 0;
  for (std::int64_t i = 0; i < bounds_; ++i) {
    const auto bound = load<std::int64_t>(bounds + i * 8);
    if (i == 0 && bound != 0) {
      fail_index(fmt::format("the first document bound is {} instead of 0", bound));
    }
    if (bound < last || bound > sequences_) {
      fail_index(fmt::format("document bound {} is {}, which is not within [{}, {}]", i, bound,
                             last, sequences_));
    }
    last = bound;
  }
  if (last != sequences_) {
    fail_index(fmt::format("the last document ends at sequence {} of {}", last, sequences_));
  }
}

void TokenFile::fail_index(std::string_view what) const {
  throw FormatError(fmt::format("{}: {}", token_index_path(prefix_).string(), what));
}

void TokenFile::read(std::int64_t offset, std::span<std::int32_t> out) const {
  const auto count = static_cast<std::int64_t>(out.size());
  check(offset >= 0 && count <= tokens_ && offset <= tokens_ - count, "tokens out of range");
  with_type(type_, [&](auto token) {
    using Token = decltype(token);
    const std::byte* from =
        data_->bytes().data() + offset * static_cast<std::int64_t>(sizeof(Token));
    for (std::size_t i = 0; i < out.size(); ++i) {
      const auto value = load<Token>(from + i * sizeof(Token));
      if constexpr (sizeof(Token) > sizeof(std::int32_t)) {
        if (!std::in_range<std::int32_t>(value)) {
          throw FormatError(fmt::format("{}: token {} at position {} is not within 32 bits",
                                        token_data_path(prefix_).string(), value,
                                        offset + static_cast<std::int64_t>(i)));
        }
      }
      out[i] = static_cast<std::int32_t>(value);
    }
  });
}

std::uint64_t TokenFile::index_hash() const { return hash_bytes(index_->bytes()); }

std::vector<std::int64_t> TokenFile::document_ends() const {
  const std::byte* lengths = index_->bytes().data() + layout::kHeaderBytes;
  const std::byte* bounds = lengths + sequences_ * std::int64_t{layout::kSequenceBytes};
  std::vector<std::int64_t> ends;
  std::int64_t tokens = 0;
  std::int64_t sequence = 0;
  for (std::int64_t document = 1; document < bounds_; ++document) {
    for (const auto end = load<std::int64_t>(bounds + document * 8); sequence < end; ++sequence) {
      tokens += load<std::int32_t>(lengths + sequence * 4);
    }
    ends.push_back(tokens);
  }
  return ends;
}

std::int64_t TokenFile::document_begin(std::int64_t document) const {
  const std::byte* offsets = index_->bytes().data() + layout::kHeaderBytes +
                             sequences_ * std::int64_t{sizeof(std::int32_t)};
  const std::byte* bounds = offsets + sequences_ * std::int64_t{sizeof(std::int64_t)};
  const auto sequence = load<std::int64_t>(bounds + document * 8);
  return sequence == sequences_ ? tokens_
                                : load<std::int64_t>(offsets + sequence * 8) /
                                      static_cast<std::int64_t>(size_of(type_));
}

void TokenFile::document_starts(std::int64_t offset, std::span<std::int32_t> out) const {
  const auto count = static_cast<std::int64_t>(out.size());
  check(offset >= 0 && count <= tokens_ && offset <= tokens_ - count, "tokens out of range");
  const auto documents = std::views::iota(std::int64_t{0}, bounds_);
  // The first document that begins after `offset`.
  const auto next = std::ranges::upper_bound(
      documents, offset, {}, [this](std::int64_t document) { return document_begin(document); });
  std::int64_t document = next == documents.end() ? bounds_ : *next;
  std::int64_t start = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    for (; document < bounds_ && document_begin(document) <= offset + i; ++document) {
      start = document_begin(document) - offset;
    }
    out[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(start);
  }
}

void TokenFile::check_vocabulary(std::int64_t vocabulary) const {
  check(vocabulary >= 1, "a vocabulary has at least one token");
  with_type(type_, [&](auto token) {
    using Token = decltype(token);
    const std::byte* from = data_->bytes().data();
    const auto is_outside = [&](std::int64_t i) {
      // A negative value is a huge one when it is read without its sign.
      const auto value = static_cast<std::int64_t>(
          load<Token>(from + i * static_cast<std::int64_t>(sizeof(Token))));
      return static_cast<std::uint64_t>(value) >= static_cast<std::uint64_t>(vocabulary);
    };
    constexpr std::int64_t kBlock = 4096;  // counted without branches, so that it vectorises
    for (std::int64_t begin = 0; begin < tokens_; begin += kBlock) {
      const std::int64_t end = std::min(begin + kBlock, tokens_);
      std::int64_t outside = 0;
      for (std::int64_t i = begin; i < end; ++i) {
        outside += is_outside(i) ? 1 : 0;
      }
      for (std::int64_t i = begin; outside > 0 && i < end; ++i) {
        if (is_outside(i)) {
          const auto value = load<Token>(from + i * static_cast<std::int64_t>(sizeof(Token)));
          throw FormatError(
              fmt::format("{}: token {} at position {} is not within the vocabulary of {}",
                          token_data_path(prefix_).string(), std::int64_t{value}, i, vocabulary));
        }
      }
    }
  });
}

}  // namespace cartesian
