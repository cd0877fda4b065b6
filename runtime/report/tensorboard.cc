#include "runtime/report/tensorboard.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <ctime>

namespace cartesian {

namespace {

// Protobuf's wire types.
constexpr std::uint32_t kVarint = 0;
constexpr std::uint32_t kFixed64 = 1;
constexpr std::uint32_t kBytes = 2;
constexpr std::uint32_t kFixed32 = 5;

template <class T>
void append_little_endian(std::string& to, T value) {
  for (std::size_t i = 0; i < sizeof value; ++i) {
    to += static_cast<char>(value >> (8 * i) & 0xFF);
  }
}

void append_varint(std::string& to, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) {
    to += static_cast<char>((value & 0x7F) | 0x80);
  }
  to += static_cast<char>(value);
}

void append_key(std::string& to, std::uint32_t field, std::uint32_t wire_type) {
  append_varint(to, field << 3 | wire_type);
}

void append_bytes(std::string& to, std::uint32_t field, std::string_view bytes) {
  append_key(to, field, kBytes);
  append_varint(to, bytes.size());
  to += bytes;
}

std::string event(double wall_time, std::int64_t step) {
  std::string data;
  append_key(data, 1, kFixed64);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &wall_time, sizeof bits);
  append_little_endian(data, bits);
  append_key(data, 2, kVarint);
  append_varint(data, static_cast<std::uint64_t>(step));
  return data;
}

std::string scalar(const std::string& tag, double value) {
  std::string data;
  append_bytes(data, 1, tag);
  append_key(data, 2, kFixed32);
  const auto narrow = static_cast<float>(value);
  std::uint32_t bits = 0;
  std::memcpy(&bits, &narrow, sizeof bits);
  append_little_endian(data, bits);
  return data;
}

std::uint32_t masked_crc(std::string_view bytes) {
  const std::uint32_t crc = crc32c(bytes);
  return (crc >> 15 | crc << 17) + 0xa282ead8U;
}

void append_record(std::string& file, std::string_view data) {
  std::string length;
  append_little_endian(length, static_cast<std::uint64_t>(data.size()));
  file += length;
  append_little_endian(file, masked_crc(length));
  file += data;
  append_little_endian(file, masked_crc(data));
}

/// Seconds since 1970 of the run's first start; 0 if it does not tell.
double start_time(const RunData& run) {
  if (run.environment.empty()) {
    return 0;
  }
  const auto started = run.environment.front().find("started");
  std::tm time{};
  if (started == run.environment.front().end() || !started->is_string() ||
      strptime(started->get<std::string>().c_str(), "%Y-%m-%dT%H:%M:%SZ", &time) == nullptr) {
    return 0;
  }
  return static_cast<double>(timegm(&time));
}

void append_row(std::string& file, const ScalarTable& table, std::size_t row, double wall_time) {
  std::string summary;
  for (const ScalarTable::Column& column : table.columns) {
    if (std::isfinite(column.values[row])) {
      std::string tag = column.key;
      std::ranges::replace(tag, '.', '/');
      append_bytes(summary, 1, scalar(tag, column.values[row]));
    }
  }
  std::string data = event(wall_time, table.steps[row]);
  append_bytes(data, 5, summary);
  append_record(file, data);
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  static constexpr auto kTable = [] {
    std::array<std::uint32_t, 256> table{};
    for (std::uint32_t i = 0; i < table.size(); ++i) {
      std::uint32_t crc = i;
      for (int bit = 0; bit < 8; ++bit) {
        crc = crc >> 1 ^ ((crc & 1) != 0 ? 0x82f63b78U : 0);
      }
      table.at(i) = crc;
    }
    return table;
  }();
  std::uint32_t crc = ~std::uint32_t{0};
  for (const char c : bytes) {
    crc = crc >> 8 ^ kTable.at((crc ^ static_cast<unsigned char>(c)) & 0xFF);
  }
  return ~crc;
}

std::string make_event_file(const RunData& run) {
  double wall_time = start_time(run);
  std::string file;
  std::string version = event(wall_time, 0);
  append_bytes(version, 3, "brain.Event:2");
  append_record(file, version);
  const ScalarTable::Column* step_s = run.steps.find("step_s");
  std::size_t validation = 0;
  for (std::size_t row = 0; row < run.steps.rows(); ++row) {
    wall_time += step_s != nullptr && std::isfinite(step_s->values[row]) ? step_s->values[row] : 0;
    append_row(file, run.steps, row, wall_time);
    for (; validation < run.validations.rows() &&
           run.validations.steps[validation] <= run.steps.steps[row];
         ++validation) {
      append_row(file, run.validations, validation, wall_time);
    }
  }
  return file;
}

}  // namespace cartesian
