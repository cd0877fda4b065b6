#include <gtest/gtest.h>

#include "runtime/data/sentencepiece.h"
#include "tests/fuzz/memory_files.h"
#include "tests/fuzz/mutator.h"
#include "tests/support/sentencepiece_models.h"

namespace cartesian {
namespace {

TEST(Fuzz, Tokenizer) {
  const std::vector<std::string> seeds = {
      make_byte_tokenizer()->to_json() + "   \n\n\n    ",
      make_sentencepiece_tokenizer(test::trained_model({}), "model")->to_json() + "  \n"};
  const std::vector<std::string> words = {"\"kind\":", "\"bytes\"", "257", "256", " ", "\"x\":1,"};
  fuzz(Mutator(seeds, words), [&](const std::string& input) {
    MemoryFiles files;
    files.set("data.tokenizer.json", input);
    EXPECT_GE(load_tokenizer(files, "data.tokenizer.json")->vocabulary(), 257);
  });
}

}  // namespace
}  // namespace cartesian
