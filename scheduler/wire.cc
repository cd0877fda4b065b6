#include "scheduler/wire.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace cartesian {

void WireWriter::put_text(std::string_view text) {
  put(static_cast<std::uint32_t>(text.size()));
  bytes_.append(text);
}

void WireReader::fail(std::string_view field, std::string_view what) const {
  throw FormatError(fmt::format("{}: {} {}", message_, field, what));
}

std::string_view WireReader::take(std::size_t size, std::string_view field) {
  if (size > rest_.size()) {
    fail(field, "is cut short");
  }
  const std::string_view bytes = rest_.substr(0, size);
  rest_.remove_prefix(size);
  return bytes;
}

std::string WireReader::get_blob(std::string_view field, std::size_t limit) {
  const auto size = std::size_t{get<std::uint32_t>(field)};
  if (size > limit) {
    fail(field, fmt::format("has {} bytes, more than {}", size, limit));
  }
  return std::string(take(size, field));
}

std::string WireReader::get_text(std::string_view field, std::size_t limit) {
  std::string text = get_blob(field, limit);
  std::ranges::replace_if(
      text, [](char c) { return c < ' ' || c > '~'; }, '?');
  return text;
}

void WireReader::end() const {
  if (!rest_.empty()) {
    fail("the message", fmt::format("has {} bytes too many", rest_.size()));
  }
}

std::string make_frame(std::uint8_t kind, std::string_view payload) {
  WireWriter writer;
  writer.put(static_cast<std::uint32_t>(payload.size() + 1));
  writer.put(kind);
  writer.put_bytes(payload);
  return writer.take();
}

void FrameBuffer::append(std::string_view bytes) {
  // Moves what is left only when that is at most as much as what was read: linear in all.
  if (begin_ > 0 && begin_ >= pending()) {
    bytes_.erase(0, begin_);
    begin_ = 0;
  }
  bytes_.append(bytes);
}

std::optional<Frame> FrameBuffer::next(std::size_t limit) {
  std::uint32_t length = 0;
  if (pending() < sizeof(length)) {
    return std::nullopt;
  }
  std::memcpy(&length, bytes_.data() + begin_, sizeof(length));
  if (length == 0 || length > limit) {
    throw FormatError(
        fmt::format("a frame of {} bytes, between 1 and {} are allowed", length, limit));
  }
  if (pending() < sizeof(length) + length) {
    return std::nullopt;
  }
  const std::string_view body = std::string_view(bytes_).substr(begin_ + sizeof(length), length);
  begin_ += sizeof(length) + length;
  return Frame{static_cast<std::uint8_t>(body.front()), body.substr(1)};
}

}  // namespace cartesian
