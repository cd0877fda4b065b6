#include "base/safetensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "base/bfloat16.h"
#include "base/check.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/json.h"

namespace cartesian {

namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

constexpr std::size_t kLengthBytes = 8;
constexpr std::uint64_t kMaxHeader = 100'000'000;  // as the reference implementation's
constexpr std::int64_t kMaxOffset = std::numeric_limits<std::int64_t>::max();

/// Bytes of an element, or nothing for an unknown spelling.
std::optional<std::int64_t> element_bytes(std::string_view dtype) {
  struct Known {
    std::string_view name;
    std::int64_t bytes;
  };
  static constexpr std::array kKnown = {
      Known{"BOOL", 1}, Known{"U8", 1},  Known{"I8", 1},  Known{"F8_E4M3", 1}, Known{"F8_E5M2", 1},
      Known{"U16", 2},  Known{"I16", 2}, Known{"F16", 2}, Known{"BF16", 2},    Known{"U32", 4},
      Known{"I32", 4},  Known{"F32", 4}, Known{"U64", 8}, Known{"I64", 8},     Known{"F64", 8},
  };
  const auto* found = std::find_if(kKnown.begin(), kKnown.end(),
                                   [&](const Known& known) { return known.name == dtype; });
  return found == kKnown.end() ? std::nullopt : std::optional(found->bytes);
}

/// The product of non-negative extents and the element's size, or nothing if it overflows.
std::optional<std::int64_t> tensor_bytes(std::span<const std::int64_t> shape,
                                         std::int64_t element) {
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) {
    return 0;
  }
  std::int64_t bytes = element;
  for (const std::int64_t extent : shape) {
    if (__builtin_mul_overflow(bytes, extent, &bytes)) {
      return std::nullopt;
    }
  }
  return bytes;
}

std::int64_t count_elements(std::span<const std::int64_t> shape) {
  return tensor_bytes(shape, 1).value_or(-1);
}

std::vector<std::int64_t> read_integers(const json& array, const std::string& what,
                                        const std::string& where) {
  if (!array.is_array()) {
    throw FormatError(fmt::format("{}: {} must be an array", where, what));
  }
  std::vector<std::int64_t> values;
  for (const json& value : array) {
    values.push_back(json_integer(value, 0, kMaxOffset, "an entry of " + what, where));
  }
  return values;
}

/// Checks one tensor's entry by itself; `data` is what follows the header.
SafetensorsEntry read_entry(const json& value, std::span<const std::byte> data,
                            const std::string& where) {
  check_json_keys(value, {"dtype", "shape", "data_offsets"}, where);
  const json& dtype = json_at(value, "dtype", where);
  if (!dtype.is_string()) {
    throw FormatError(fmt::format("{}: \"dtype\" must be a string", where));
  }
  SafetensorsEntry entry;
  entry.dtype = dtype.get<std::string>();
  const auto element = element_bytes(entry.dtype);
  if (!element) {
    throw FormatError(fmt::format("{}: unknown dtype {}", where, quote(entry.dtype)));
  }
  entry.shape = read_integers(json_at(value, "shape", where), "\"shape\"", where);
  const auto bytes = tensor_bytes(entry.shape, *element);
  if (!bytes) {
    throw FormatError(
        fmt::format("{}: shape [{}] is too large to be", where, fmt::join(entry.shape, ", ")));
  }
  const auto offsets =
      read_integers(json_at(value, "data_offsets", where), "\"data_offsets\"", where);
  if (offsets.size() != 2 || offsets[0] > offsets[1]) {
    throw FormatError(
        fmt::format("{}: data_offsets [{}] must be a begin and an end that is not before it", where,
                    fmt::join(offsets, ", ")));
  }
  if (static_cast<std::uint64_t>(offsets[1]) > data.size()) {
    throw FormatError(fmt::format("{}: data_offsets [{}] reach beyond the file's {} bytes of data",
                                  where, fmt::join(offsets, ", "), data.size()));
  }
  if (offsets[1] - offsets[0] != *bytes) {
    throw FormatError(
        fmt::format("{}: data_offsets [{}] hold {} bytes, but shape [{}] of {} needs {}", where,
                    fmt::join(offsets, ", "), offsets[1] - offsets[0], fmt::join(entry.shape, ", "),
                    entry.dtype, *bytes));
  }
  entry.bytes =
      data.subspan(static_cast<std::size_t>(offsets[0]), static_cast<std::size_t>(*bytes));
  return entry;
}

/// The format has neither gaps nor overlaps: tensors in the order of their offsets cover the data.
void check_coverage(const std::map<std::string, SafetensorsEntry, std::less<>>& tensors,
                    std::span<const std::byte> data, const std::string& source) {
  using Item = const std::pair<const std::string, SafetensorsEntry>*;
  std::vector<Item> order;
  for (const auto& item : tensors) {
    order.push_back(&item);
  }
  const auto begin_of = [&](Item item) { return item->second.bytes.data() - data.data(); };
  std::sort(order.begin(), order.end(), [&](Item a, Item b) {
    // Empty tensors come before the one that begins where they are.
    return std::pair(begin_of(a), a->second.bytes.size()) <
           std::pair(begin_of(b), b->second.bytes.size());
  });
  std::ptrdiff_t end = 0;
  for (const Item item : order) {
    if (begin_of(item) != end) {
      throw FormatError(fmt::format(
          "{}: tensor {} begins at byte {} of the data, {} byte {}", source, quote(item->first),
          begin_of(item),
          begin_of(item) < end ? "inside the one that ends at" : "leaving a gap after", end));
    }
    end += static_cast<std::ptrdiff_t>(item->second.bytes.size());
  }
  if (static_cast<std::size_t>(end) != data.size()) {
    throw FormatError(fmt::format("{}: {} bytes of data belong to no tensor", source,
                                  data.size() - static_cast<std::size_t>(end)));
  }
}

std::map<std::string, std::string> read_metadata(const json& value, const std::string& source) {
  if (!value.is_object()) {
    throw FormatError(fmt::format("{}: \"__metadata__\" must be an object", source));
  }
  std::map<std::string, std::string> metadata;
  for (const auto& item : value.items()) {
    if (!item.value().is_string()) {
      throw FormatError(fmt::format("{}: metadata {} must be a string", source, quote(item.key())));
    }
    metadata.emplace(item.key(), item.value().get<std::string>());
  }
  return metadata;
}

std::string_view header_of(std::span<const std::byte> file, const std::string& source) {
  if (file.size() < kLengthBytes) {
    throw FormatError(
        fmt::format("{}: {} bytes are too few for a safetensors file", source, file.size()));
  }
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), kLengthBytes);
  if (length > file.size() - kLengthBytes) {
    throw FormatError(fmt::format("{}: the header's length {} reaches beyond the file's {} bytes",
                                  source, length, file.size()));
  }
  if (length > kMaxHeader) {
    throw FormatError(fmt::format("{}: a header of {} bytes is above the format's limit of {}",
                                  source, length, kMaxHeader));
  }
  const auto bytes = file.subspan(kLengthBytes, static_cast<std::size_t>(length));
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

float half_to_float(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000U) << 16;
  const std::uint32_t exponent = (half >> 10) & 0x1FU;
  const std::uint32_t fraction = half & 0x3FFU;
  if (exponent == 0) {  // zero or subnormal: fraction * 2^-24
    const float magnitude = std::ldexp(static_cast<float>(fraction), -24);
    return sign != 0 ? -magnitude : magnitude;
  }
  const std::uint32_t wide = exponent == 0x1F ? 0xFFU : exponent + (127 - 15);
  return std::bit_cast<float>(sign | (wide << 23) | (fraction << 13));
}

/// Tensors of other writers need not be aligned, hence memcpy.
template <class Convert>
void convert_16_bit(std::span<const std::byte> bytes, std::span<float> out, Convert convert) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, bytes.data() + 2 * i, 2);
    out[i] = convert(bits);
  }
}

}  // namespace

SafetensorsReader::SafetensorsReader(FileSystem& files, const Path& path)
    : path_(path), file_(files.map(path)) {
  const std::string source = path.string();
  const auto bytes = file_->bytes();
  const std::string_view header = header_of(bytes, source);
  const auto data = bytes.subspan(kLengthBytes + header.size());
  const json root = parse_json(header, source + ": header");
  if (!root.is_object()) {
    throw FormatError(fmt::format("{}: the header must be a JSON object", source));
  }
  for (const auto& item : root.items()) {
    if (item.key() == "__metadata__") {
      metadata_ = read_metadata(item.value(), source);
    } else {
      const std::string where = fmt::format("{}: tensor {}", source, quote(item.key()));
      tensors_.emplace(item.key(), read_entry(item.value(), data, where));
    }
  }
  check_coverage(tensors_, data, source);
}

const SafetensorsEntry& SafetensorsReader::at(std::string_view name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    throw FormatError(fmt::format("{}: there is no tensor {}", path_.string(), quote(name)));
  }
  return found->second;
}

void SafetensorsReader::read_float32(std::string_view name, std::span<float> out) const {
  const SafetensorsEntry& entry = at(name);
  if (count_elements(entry.shape) != static_cast<std::int64_t>(out.size())) {
    throw FormatError(fmt::format("{}: tensor {} has shape [{}] instead of {} elements",
                                  path_.string(), quote(name), fmt::join(entry.shape, ", "),
                                  out.size()));
  }
  if (entry.dtype == "F32") {
    std::copy(entry.bytes.begin(), entry.bytes.end(), std::as_writable_bytes(out).begin());
  } else if (entry.dtype == "BF16") {
    convert_16_bit(entry.bytes, out, [](std::uint16_t bits) { return to_float(bfloat16{bits}); });
  } else if (entry.dtype == "F16") {
    convert_16_bit(entry.bytes, out, half_to_float);
  } else {
    throw FormatError(fmt::format("{}: tensor {} is {}, but F32, BF16 or F16 is needed",
                                  path_.string(), quote(name), entry.dtype));
  }
}

std::uint64_t write_safetensors(OutputFile& file,
                                std::span<const std::pair<std::string, SafetensorsEntry>> tensors,
                                const std::map<std::string, std::string>& metadata) {
  // Written in the order given, so that equal input gives equal bytes and offsets ascend in the
  // header. By hand: an ordered JSON object looks every key up among all the others.
  std::string text = "{";
  const auto add = [&text](std::string_view name, const nlohmann::ordered_json& value) {
    text += text.size() > 1 ? "," : "";
    text += nlohmann::ordered_json(name).dump() + ":" + value.dump();
  };
  if (!metadata.empty()) {
    add("__metadata__", metadata);
  }
  std::size_t offset = 0;
  std::set<std::string_view> names;
  for (const auto& [name, entry] : tensors) {
    const auto element = element_bytes(entry.dtype);
    check(element.has_value(), "a tensor of a dtype that the format has");
    check(tensor_bytes(entry.shape, *element) == static_cast<std::int64_t>(entry.bytes.size()),
          "a tensor's bytes fit its shape");
    check(name != "__metadata__" && names.insert(name).second, "tensor names are distinct");
    add(name, {{"dtype", entry.dtype},
               {"shape", entry.shape},
               {"data_offsets", {offset, offset + entry.bytes.size()}}});
    offset += entry.bytes.size();
  }
  text += "}";
  text.resize((text.size() + 7) / 8 * 8, ' ');

  Hasher hasher;
  const auto emit = [&](std::span<const std::byte> bytes) {
    hasher.update(bytes);
    file.append(bytes);
  };
  const auto length = static_cast<std::uint64_t>(text.size());
  emit(std::as_bytes(std::span(&length, 1)));
  emit(std::as_bytes(std::span(text)));
  for (const auto& [name, entry] : tensors) {
    emit(entry.bytes);
  }
  return hasher.digest();
}

}  // namespace cartesian
