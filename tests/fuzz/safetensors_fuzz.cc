#include <gtest/gtest.h>

#include <cstring>

#include "base/safetensors.h"
#include "tests/fuzz/memory_files.h"
#include "tests/fuzz/mutator.h"

namespace cartesian {
namespace {

std::string file_of(const std::string& header, std::size_t data) {
  std::string file(8, '\0');
  const std::uint64_t length = header.size();
  std::memcpy(file.data(), &length, 8);
  return file + header + std::string(data, 'x');
}

/// Reads every byte that the reader vouches for.
void walk(const SafetensorsReader& reader) {
  for (const auto& [name, entry] : reader.tensors()) {
    std::uint64_t sum = 0;
    for (const std::byte byte : entry.bytes) {
      sum += std::to_integer<std::uint64_t>(byte);
    }
    EXPECT_LE(sum, entry.bytes.size() * 255);
    std::int64_t elements = 1;
    for (const std::int64_t extent : entry.shape) {
      elements *= extent;
    }
    EXPECT_LE(elements, static_cast<std::int64_t>(entry.bytes.size()));
    if (entry.dtype == "F32" || entry.dtype == "BF16" || entry.dtype == "F16") {
      std::vector<float> values(static_cast<std::size_t>(elements));
      reader.read_float32(name, values);
    }
  }
}

TEST(Fuzz, Safetensors) {
  const std::vector<std::string> seeds = {
      file_of(R"({"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
              R"("b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]}})",
              32),
      file_of(R"({"__metadata__":{"format":"pt"},"w":{"dtype":"I64","shape":[],)"
              R"("data_offsets":[0,8]},"e":{"dtype":"F16","shape":[0,5],"data_offsets":[8,8]}}  )",
              8),
      file_of("{}", 0),
  };
  const std::vector<std::string> words = {
      "\"F64\"",           "\"U8\"", "\"dtype\":",         "\"shape\":",
      "\"data_offsets\":", "[0,0]",  "\"__metadata__\":{}"};
  // Mutations of the header alone, with its length put right, reach what lies behind that check.
  for (const bool repair_length : {false, true}) {
    fuzz(Mutator(seeds, words), [&](std::string input) {
      if (repair_length && input.size() >= 8) {
        const std::size_t end = input.rfind('}');
        const std::uint64_t length = end == std::string::npos || end < 8 ? 0 : end - 7;
        std::memcpy(input.data(), &length, 8);
      }
      MemoryFiles files;
      files.set("model.safetensors", input);
      walk(SafetensorsReader(files, "model.safetensors"));
    });
  }
}

}  // namespace
}  // namespace cartesian
