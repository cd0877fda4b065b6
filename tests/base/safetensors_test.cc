#include "base/safetensors.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "base/bfloat16.h"
#include "base/error.h"
#include "base/hash.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_directory.h"

namespace cartesian {
namespace {

std::string with_length(std::uint64_t length, const std::string& rest) {
  std::string file(8, '\0');
  std::memcpy(file.data(), &length, 8);
  return file + rest;
}

/// A file of this header and `data` bytes of data.
std::string file_of(const std::string& header, std::size_t data) {
  return with_length(header.size(), header + std::string(data, '\1'));
}

class Safetensors : public testing::Test {
 protected:
  SafetensorsReader read(const std::string& contents) {
    const auto file = files_->create(path_);
    file->append(contents);
    file->close();
    return {*files_, path_};
  }
  void expect_refused(const std::string& contents, std::initializer_list<std::string> mentions) {
    expect_error<FormatError>([&] { (void)read(contents); }, {path_.string()});
    expect_error<FormatError>([&] { (void)read(contents); }, mentions);
  }
  std::uint64_t write(std::span<const std::pair<std::string, SafetensorsEntry>> tensors,
                      const std::map<std::string, std::string>& metadata) {
    const auto file = files_->create(path_);
    const std::uint64_t hash = write_safetensors(*file, tensors, metadata);
    file->close();
    return hash;
  }

  TemporaryDirectory directory_;
  std::unique_ptr<FileSystem> files_ = make_posix_file_system();
  Path path_ = directory_ / "model.safetensors";
};

template <class T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

TEST_F(Safetensors, RoundTrips) {
  const std::vector<float> a = {1.5F, -2.0F, std::numeric_limits<float>::infinity(),
                                0.0F, 5.0F,  6.0F};
  const std::vector<bfloat16> b = {to_bfloat16(0.5F), to_bfloat16(-3.0F), to_bfloat16(7.0F)};
  const std::vector<std::int64_t> c = {-1};
  const std::vector<std::pair<std::string, SafetensorsEntry>> tensors = {
      {"z.weight", {"F32", {2, 3}, bytes_of(a)}},
      {"a \"quoted\" name", {"BF16", {3}, bytes_of(b)}},
      {"scalar", {"I64", {}, bytes_of(c)}},
      {"empty", {"F32", {0, 4}, {}}},
  };
  const std::map<std::string, std::string> metadata = {{"format", "pt"}, {"note", "\u00e4\n"}};
  const std::uint64_t hash = write(tensors, metadata);
  EXPECT_EQ(hash, hash_bytes(files_->read(path_)));

  const SafetensorsReader reader(*files_, path_);
  EXPECT_EQ(reader.metadata(), metadata);
  EXPECT_EQ(reader.tensors().size(), 4U);
  for (const auto& [name, entry] : tensors) {
    const SafetensorsEntry& found = reader.at(name);
    EXPECT_EQ(found.dtype, entry.dtype);
    EXPECT_EQ(found.shape, entry.shape);
    EXPECT_TRUE(
        std::equal(found.bytes.begin(), found.bytes.end(), entry.bytes.begin(), entry.bytes.end()));
  }
  const auto* start = reader.at("z.weight").bytes.data();
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(start) % 8, 0U);

  std::vector<float> out(3);
  reader.read_float32("a \"quoted\" name", out);
  EXPECT_EQ(out, (std::vector{0.5F, -3.0F, 7.0F}));
  std::vector<float> six(6);
  reader.read_float32("z.weight", six);
  EXPECT_EQ(six, a);
}

TEST_F(Safetensors, NothingAtAllRoundTrips) {
  write({}, {});
  EXPECT_TRUE(SafetensorsReader(*files_, path_).tensors().empty());
}

TEST_F(Safetensors, ReadsAHandBuiltFile) {
  // Unaligned data, trailing blanks, offsets not in the order of the names.
  const std::string header = R"({"b":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},)"
                             R"("a":{"dtype":"U8","shape":[1],"data_offsets":[4,5]}}   )";
  std::string file = with_length(header.size(), header);
  file += std::string("\x00\x3C\x01\x80\x09", 5);  // 1.0, -2^-24, 9
  const SafetensorsReader reader = read(file);
  std::vector<float> out(2);
  reader.read_float32("b", out);
  EXPECT_EQ(out, (std::vector{1.0F, -std::ldexp(1.0F, -24)}));
  EXPECT_EQ(reader.at("a").bytes[0], std::byte{9});
}

TEST_F(Safetensors, ConvertsEveryHalf) {
  std::vector<std::uint16_t> halves(65536);
  for (std::size_t i = 0; i < halves.size(); ++i) {
    halves[i] = static_cast<std::uint16_t>(i);
  }
  const std::vector<std::pair<std::string, SafetensorsEntry>> tensors = {
      {"h", {"F16", {65536}, bytes_of(halves)}}};
  write(tensors, {});
  const SafetensorsReader reader(*files_, path_);
  std::vector<float> out(65536);
  reader.read_float32("h", out);
  for (std::size_t i = 0; i < out.size(); ++i) {
    const int exponent = static_cast<int>((i >> 10) & 31);
    const auto fraction = static_cast<double>(i & 1023);
    const double sign = i < 32768 ? 1.0 : -1.0;
    if (exponent == 31) {
      EXPECT_TRUE(fraction == 0 ? std::isinf(out[i]) : std::isnan(out[i])) << i;
    } else {
      const double magnitude =
          exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024.0 + fraction, exponent - 25);
      EXPECT_EQ(out[i], static_cast<float>(sign * magnitude)) << i;
    }
    EXPECT_EQ(std::signbit(out[i]), i >= 32768) << i;
  }
}

TEST_F(Safetensors, RefusesWrongReads) {
  const SafetensorsReader reader = read(file_of(
      R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"i":{"dtype":"I32","shape":[1],"data_offsets":[8,12]}})",
      12));
  const std::string file = path_.string();
  std::vector<float> one(1);
  expect_error<FormatError>([&] { (void)reader.at("x"); }, {file, "\"x\""});
  expect_error<FormatError>([&] { reader.read_float32("x", one); }, {file, "\"x\""});
  expect_error<FormatError>([&] { reader.read_float32("w", one); }, {file, "\"w\"", "[2]", "1 "});
  expect_error<FormatError>([&] { reader.read_float32("i", one); }, {file, "\"i\"", "I32"});
}

TEST_F(Safetensors, RefusesHostileLengths) {
  expect_refused("", {"0 bytes"});
  expect_refused("1234567", {"7 bytes"});
  expect_refused(with_length(3, "{}"), {"3", "beyond"});
  expect_refused(with_length(~0ULL, "{}"), {"18446744073709551615", "beyond"});
  expect_refused(with_length(~0ULL - 7, "{}"), {"beyond"});
  expect_refused(with_length(1ULL << 63, "{}"), {"beyond"});
}

TEST_F(Safetensors, RefusesHostileJson) {
  const auto refuse = [&](const std::string& header, std::initializer_list<std::string> mentions) {
    expect_refused(file_of(header, 8), mentions);
  };
  refuse("", {"not valid JSON"});
  refuse("{", {"not valid JSON"});
  refuse(std::string("{}\0\0", 4), {"not valid JSON"});
  refuse("{\"\xC3\x28\": 1}", {"not valid JSON"});
  refuse(std::string(1'000'000, '['), {"deeper"});
  refuse("[]", {"object"});
  refuse("3", {"object"});
  refuse("{}", {"8 bytes", "no tensor"});
  refuse(R"({"w":3})", {"\"w\"", "object"});
  refuse(R"({"__metadata__":[]})", {"__metadata__"});
  refuse(R"({"__metadata__":{"a":1}})", {"metadata \"a\"", "string"});
  const std::string w = R"("w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
  refuse("{" + w + "," + w + "}", {"\"w\"", "twice"});
  refuse("{" + w, {"not valid JSON"});
}

TEST_F(Safetensors, RefusesHostileEntries) {
  const auto refuse = [&](const std::string& entry, std::initializer_list<std::string> mentions) {
    const std::string contents = file_of("{\"w\":" + entry + "}", 8);
    expect_refused(contents, {"\"w\""});
    expect_refused(contents, mentions);
  };
  const auto entry = [](const char* dtype, const char* shape, const char* offsets) {
    return fmt::format(R"({{"dtype":{},"shape":{},"data_offsets":{}}})", dtype, shape, offsets);
  };
  EXPECT_EQ(read(file_of("{\"w\":" + entry("\"F32\"", "[2]", "[0,8]") + "}", 8)).tensors().size(),
            1U);
  refuse("{}", {"dtype", "missing"});
  refuse(R"({"dtype":"F32","shape":[2]})", {"data_offsets", "missing"});
  refuse(R"({"dtype":"F32","data_offsets":[0,8]})", {"shape", "missing"});
  refuse(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1})", {"unknown key \"x\""});
  refuse(entry("3", "[2]", "[0,8]"), {"dtype", "string"});
  refuse(entry("\"F33\"", "[2]", "[0,8]"), {"unknown dtype \"F33\""});
  refuse(entry("\"F64\"", "[2]", "[0,8]"), {"F64", "16"});
  refuse(entry("\"BF16\"", "[2]", "[0,8]"), {"BF16", "4"});
  refuse(entry("\"F32\"", "2", "[0,8]"), {"shape", "array"});
  refuse(entry("\"F32\"", "[-2]", "[0,8]"), {"shape", "-2"});
  refuse(entry("\"F32\"", "[2.0]", "[0,8]"), {"shape", "integer"});
  refuse(entry("\"F32\"", "[3]", "[0,8]"), {"[3]", "12"});
  refuse(entry("\"F32\"", "[4611686018427387904,4]", "[0,8]"), {"too large"});
  refuse(entry("\"F32\"", "[4294967296,4294967296]", "[0,0]"), {"too large"});
  refuse(entry("\"F32\"", "[9223372036854775808]", "[0,8]"), {"shape"});
  refuse(entry("\"F32\"", "[4611686018427387905]", "[0,8]"), {"too large"});
  refuse(entry("\"F32\"", "[2]", "[0]"), {"data_offsets"});
  refuse(entry("\"F32\"", "[2]", "[0,8,8]"), {"data_offsets"});
  refuse(entry("\"F32\"", "[2]", "8"), {"data_offsets", "array"});
  refuse(entry("\"F32\"", "[2]", "[8,0]"), {"data_offsets"});
  refuse(entry("\"F32\"", "[2]", "[-8,0]"), {"data_offsets", "-8"});
  refuse(entry("\"F32\"", "[2]", "[1,9]"), {"[1, 9]", "beyond"});
  refuse(entry("\"F32\"", "[2]", "[9223372036854775799,9223372036854775807]"), {"beyond"});
  refuse(entry("\"F32\"", "[2]", "[18446744073709551608,18446744073709551615]"), {"data_offsets"});
}

TEST_F(Safetensors, RefusesGapsOverlapsAndTrailingBytes) {
  const auto entry = [](const char* name, int begin, int end) {
    return fmt::format(R"("{}":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}})", name,
                       end - begin, begin, end);
  };
  const auto file = [&](std::initializer_list<std::string> entries) {
    std::string header;
    for (const std::string& one : entries) {
      header += (header.empty() ? "{" : ",") + one;
    }
    return file_of(header + "}", 8);
  };
  EXPECT_EQ(read(file({entry("a", 4, 8), entry("b", 0, 4), entry("e", 4, 4)})).tensors().size(),
            3U);
  expect_refused(file({entry("a", 0, 4), entry("b", 5, 8)}), {"\"b\"", "gap"});
  expect_refused(file({entry("a", 1, 8)}), {"\"a\"", "gap"});
  expect_refused(file({entry("a", 0, 5), entry("b", 4, 8)}), {"\"b\"", "inside"});
  expect_refused(file({entry("a", 0, 8), entry("b", 0, 8)}), {"inside"});
  expect_refused(file({entry("a", 0, 8), entry("e", 3, 3)}), {"\"e\"", "inside"});
  expect_refused(file({entry("a", 0, 7)}), {"1 bytes", "no tensor"});
}

}  // namespace
}  // namespace cartesian
