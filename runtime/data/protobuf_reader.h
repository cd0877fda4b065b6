#pragma once
// ProtobufReader: the fields of one serialized Protocol Buffers message, in order
// (protobuf.dev/programming-guides/encoding). Groups, which nobody writes any more, are refused.

#include <cstdint>
#include <string>
#include <string_view>

namespace cartesian {

struct ProtobufField {
  std::uint32_t number = 0;
  enum class Type : std::uint8_t { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 } type{};
  std::uint64_t integer = 0;  ///< of every type but bytes
  std::string_view bytes;     ///< of bytes: points into the message

  /// A fixed32's bits as a float.
  float as_float() const;
};

class ProtobufReader {
 public:
  /// `message` must outlive this. `source` begins every error.
  ProtobufReader(std::string_view message, const std::string& source)
      : rest_(message), source_(source) {}

  /// Reads the next field; false at the end. Throws FormatError if the message is malformed.
  bool next(ProtobufField& field);

 private:
  std::uint64_t varint();
  std::string_view take(std::uint64_t size);
  [[noreturn]] void fail() const;

  std::string_view rest_;
  const std::string& source_;
};

}  // namespace cartesian
