#include "runtime/data/protobuf_reader.h"

#include <fmt/format.h>

#include <bit>

#include "base/error.h"

namespace cartesian {

float ProtobufField::as_float() const {
  return std::bit_cast<float>(static_cast<std::uint32_t>(integer));
}

bool ProtobufReader::next(ProtobufField& field) {
  if (rest_.empty()) {
    return false;
  }
  const std::uint64_t tag = varint();
  field = {};
  field.number = static_cast<std::uint32_t>(tag >> 3);
  field.type = static_cast<ProtobufField::Type>(tag & 7U);
  if (field.number == 0 || tag >> 32 != 0) {
    fail();
  }
  const auto fixed = [this](std::size_t size) {
    const std::string_view bytes = take(size);
    std::uint64_t value = 0;
    for (std::size_t i = size; i-- > 0;) {
      value = value << 8 | static_cast<unsigned char>(bytes[i]);
    }
    return value;
  };
  switch (field.type) {
    case ProtobufField::Type::varint:
      field.integer = varint();
      return true;
    case ProtobufField::Type::fixed64:
      field.integer = fixed(8);
      return true;
    case ProtobufField::Type::bytes:
      field.bytes = take(varint());
      return true;
    case ProtobufField::Type::fixed32:
      field.integer = fixed(4);
      return true;
  }
  fail();
}

std::uint64_t ProtobufReader::varint() {
  std::uint64_t value = 0;
  for (unsigned shift = 0; shift < 64; shift += 7) {
    const auto byte = static_cast<unsigned char>(take(1)[0]);
    value |= static_cast<std::uint64_t>(byte & 0x7FU) << shift;
    if (byte < 0x80) {
      return value;
    }
  }
  fail();
}

std::string_view ProtobufReader::take(std::uint64_t size) {
  if (size > rest_.size()) {
    fail();
  }
  const std::string_view taken = rest_.substr(0, size);
  rest_.remove_prefix(size);
  return taken;
}

void ProtobufReader::fail() const {
  throw FormatError(fmt::format("{}: not a SentencePiece model, or a damaged one", source_));
}

}  // namespace cartesian
