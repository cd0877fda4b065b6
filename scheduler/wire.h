#pragma once
// The bytes of the control plane: little-endian numbers, lengths before what varies, and frames:
// u32 length of what follows, u8 kind, payload. Nothing that a peer says is believed before the
// bytes are there.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace cartesian {

static_assert(std::endian::native == std::endian::little, "the wire is little-endian");

/// The largest frames, kind and payload: from whom has not proven that it knows the secret, and
/// from whom has.
inline constexpr std::size_t kStrangerFrame = 4096;
inline constexpr std::size_t kMemberFrame = std::size_t{16} << 20;
/// The largest step and count that is believed: sums over thousands of ranks do not overflow.
inline constexpr std::int64_t kMostCount = std::int64_t{1} << 50;

/// Appends to a message. Not thread-safe.
class WireWriter {
 public:
  template <class T>
  void put(T value) {
    static_assert(std::is_arithmetic_v<T>);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(T));
  }
  /// Its length, then the bytes.
  void put_text(std::string_view text);
  /// The bytes alone, for a size that both sides know.
  void put_bytes(std::string_view bytes) { bytes_.append(bytes); }
  template <class T>
  void put_list(const std::vector<T>& values) {
    static_assert(std::is_arithmetic_v<T>);
    put(static_cast<std::uint32_t>(values.size()));
    bytes_.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
  }

  std::string take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

/// Reads a message from front to back. Every function throws FormatError, which names the message
/// and the field, if the bytes are not there. The bytes must outlive it. Not thread-safe.
class WireReader {
 public:
  WireReader(std::string_view message, std::string_view bytes) : message_(message), rest_(bytes) {}

  template <class T>
  T get(std::string_view field) {
    static_assert(std::is_arithmetic_v<T> && !std::is_same_v<T, bool>);
    T value;
    std::memcpy(&value, take(sizeof(T), field).data(), sizeof(T));
    return value;
  }
  /// At most `limit` bytes, as they are.
  std::string get_blob(std::string_view field, std::size_t limit);
  /// At most `limit` bytes; what is not printable ASCII becomes '?', since it goes to terminals,
  /// logs and labels.
  std::string get_text(std::string_view field, std::size_t limit);
  std::string_view get_bytes(std::string_view field, std::size_t size) { return take(size, field); }
  template <class T>
  std::vector<T> get_list(std::string_view field) {
    static_assert(std::is_arithmetic_v<T>);
    const auto count = std::size_t{get<std::uint32_t>(field)};
    const std::string_view bytes = take(count * sizeof(T), field);
    std::vector<T> values(count);
    if (count > 0) {
      std::memcpy(values.data(), bytes.data(), bytes.size());
    }
    return values;
  }
  /// Throws FormatError unless all has been read.
  void end() const;
  [[noreturn]] void fail(std::string_view field, std::string_view what) const;

 private:
  std::string_view take(std::size_t size, std::string_view field);

  std::string_view message_;
  std::string_view rest_;
};

struct Frame {
  std::uint8_t kind = 0;
  std::string_view payload;
};

std::string make_frame(std::uint8_t kind, std::string_view payload);

/// Cuts a stream of bytes into frames. Not thread-safe.
class FrameBuffer {
 public:
  void append(std::string_view bytes);
  /// The next frame if all of it has come; its payload is good until the next call of any function.
  /// Throws FormatError if its length is zero or above `limit`, as soon as the length is there.
  std::optional<Frame> next(std::size_t limit);
  /// Bytes that are held and no frame yet.
  std::size_t pending() const { return bytes_.size() - begin_; }

 private:
  std::string bytes_;
  std::size_t begin_ = 0;
};

}  // namespace cartesian
