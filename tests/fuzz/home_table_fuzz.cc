#include <gtest/gtest.h>

#include <cmath>

#include "planner/home_table.h"
#include "tests/fuzz/memory_files.h"
#include "tests/fuzz/mutator.h"

namespace cartesian {
namespace {

TEST(Fuzz, HomeTable) {
  const std::string header =
      R"({"__metadata__": {"nodes": "2", "flow": "pivot", "trace": "t", "trace_xxh3": "0", )"
      R"("placement": "p", "placement_xxh3": "0"}, )"
      R"("scores": {"dtype": "F32", "shape": [3, 2], "data_offsets": [0, 24]}})";
  const std::string seed = std::string(1, static_cast<char>(header.size())) + std::string(7, '\0') +
                           header + std::string(24, '\0');
  const std::vector<std::string> words = {"\"shape\"", "[2, 3]", "[6]",  "scores",
                                          "\"2\"",     "F32",    "BF16", "nodes"};
  fuzz(Mutator({seed}, words), [&](const std::string& input) {
    MemoryFiles files;
    files.set("homes", input);
    const HomeTable table = load_home_table(files, "homes");
    EXPECT_EQ(table.scores.size(), static_cast<std::size_t>(table.vocab_size * table.nodes));
    for (const float score : table.scores) {
      EXPECT_TRUE(std::isfinite(score));
    }
  });
}

}  // namespace
}  // namespace cartesian
