#include <gtest/gtest.h>

#include <algorithm>

#include "runtime/data/sentencepiece.h"
#include "tests/fuzz/memory_files.h"
#include "tests/fuzz/mutator.h"
#include "tests/support/sentencepiece_models.h"

namespace cartesian {
namespace {

void fuzz_tokenizer(const std::string& seed, std::int64_t runs) {
  const std::vector<std::string> words = {"\"kind\":", "\"bytes\"", "257", "256", " ", "\"x\":1,"};
  fuzz(
      Mutator({seed}, words),
      [&](const std::string& input) {
        MemoryFiles files;
        files.set("data.tokenizer.json", input);
        EXPECT_GE(load_tokenizer(files, "data.tokenizer.json")->vocabulary(), 257);
      },
      runs);
}

TEST(Fuzz, Tokenizer) {
  fuzz_tokenizer(make_byte_tokenizer()->to_json() + "   \n\n\n    ", fuzz_runs());
}

// A model that is in order costs a millisecond, so long runs are shorter here.
TEST(Fuzz, SentencePieceTokenizer) {
  const std::int64_t runs = std::max(std::min<std::int64_t>(fuzz_runs(), 2000), fuzz_runs() / 20);
  fuzz_tokenizer(make_sentencepiece_tokenizer(test::trained_model({}), "model")->to_json() + "  \n",
                 runs);
}

}  // namespace
}  // namespace cartesian
