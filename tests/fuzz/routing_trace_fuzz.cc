#include <gtest/gtest.h>

#include "base/routing_trace.h"
#include "tests/fuzz/memory_files.h"
#include "tests/fuzz/mutator.h"

namespace cartesian {
namespace {

std::string file_of(const std::string& header, std::size_t data) {
  std::string length(8, '\0');
  for (std::size_t i = 0; i < 4; ++i) {
    length[i] = static_cast<char>(header.size() >> (8 * i) & 0xFF);
  }
  return length + header + std::string(data, '\0');
}

TEST(Fuzz, RoutingTrace) {
  const std::string metadata =
      R"({"__metadata__": {"experts": "4", "hidden": "8", "expert_width": "4", "tokens_per_step": "0",)"
      R"( "dtype": "float32", "model": "m"}, )";
  const std::vector<std::string> seeds = {
      file_of(
          metadata +
              R"("layers.0.A.ids": {"dtype": "I16", "shape": [2, 2], "data_offsets": [0, 8]},)"
              R"( "layers.0.A.gates": {"dtype": "F32", "shape": [2, 2], "data_offsets": [8, 24]}})",
          24),
      file_of(
          metadata +
              R"("layers.3.B.ids": {"dtype": "I16", "shape": [1, 1], "data_offsets": [0, 2]},)"
              R"( "layers.3.B.speculative_ids": {"dtype": "I16", "shape": [1, 1], )"
              R"("data_offsets": [2, 4]}, "layers.3.B.gates": {"dtype": "F32", "shape": [1, 1],)"
              R"( "data_offsets": [4, 8]}, "home": {"dtype": "I32", "shape": [1], )"
              R"("data_offsets": [8, 12]}})",
          12),
      file_of(R"({"__metadata__": {"experts": "4", "hidden": "8", "expert_width": "4", )"
              R"("tokens_per_step": "0", "dtype": "float32", "model": "m", "vocab_size": "9", )"
              R"("sequence_length": "2"}, )"
              R"("layers.0.A.ids": {"dtype": "I16", "shape": [2, 1], "data_offsets": [0, 4]},)"
              R"( "layers.0.A.gates": {"dtype": "F32", "shape": [2, 1], "data_offsets": [4, 12]},)"
              R"( "token_ids": {"dtype": "I32", "shape": [2], "data_offsets": [12, 20]}})",
              20)};
  const std::vector<std::string> words = {
      "\"shape\"", "[2, 2]",    "layers.0.A.ids", "\"4\"",     "home",  "I16",
      "F32",       "layers.1.", "gates",          "token_ids", "\"9\"", "vocab_size"};
  fuzz(Mutator(seeds, words), [&](const std::string& input) {
    MemoryFiles files;
    files.set("trace", input);
    const RoutingTrace trace = load_routing_trace(files, "trace");
    for (const RoutingTrace::SubLayer& sub_layer : trace.sub_layers) {
      const auto size = static_cast<std::size_t>(trace.tokens * sub_layer.choices);
      EXPECT_EQ(sub_layer.ids.size(), size);
      EXPECT_EQ(sub_layer.gates.size(), size);
    }
    EXPECT_EQ(trace.token_ids.size(),
              static_cast<std::size_t>(trace.has_text() ? trace.tokens : 0));
    for (const std::int32_t id : trace.token_ids) {
      EXPECT_TRUE(id >= 0 && id < trace.vocab_size);
    }
  });
}

}  // namespace
}  // namespace cartesian
