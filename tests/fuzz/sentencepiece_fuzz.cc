#include <gtest/gtest.h>

#include <fstream>

#include "runtime/data/sentencepiece.h"
#include "tests/fuzz/mutator.h"
#include "tests/support/sentencepiece_models.h"
#include "tests/support/temporary_directory.h"

namespace cartesian {
namespace {

/// Models with every part that the library reads, small enough that a mutation often meets it.
std::vector<std::string> seeds() {
  const TemporaryDirectory directory;
  const std::string rules = (directory / "rules.tsv").string();
  std::ofstream(rules) << "41\t61\n42\t62\nE4\t61 65\nFB01\t66 69\n41 42\t78\n";
  using Settings = std::unordered_map<std::string, std::string>;
  std::vector<std::string> models;
  for (Settings settings : {Settings{{"model_type", "bpe"}}, Settings{{"model_type", "unigram"}},
                            Settings{{"model_type", "word"}}, Settings{{"model_type", "char"}}}) {
    settings.insert({{"normalization_rule_tsv", rules},
                     {"denormalization_rule_tsv", rules},
                     {"user_defined_symbols", "sea,ship"},
                     {"hard_vocab_limit", "false"},
                     {"byte_fallback", "false"},
                     {"vocab_size", "60"}});
    if (settings["model_type"] == "word" || settings["model_type"] == "char") {
      settings.erase("hard_vocab_limit");
      settings["use_all_vocab"] = "true";
    }
    models.push_back(test::trained_model(settings));
    settings["byte_fallback"] = "true";
    settings["vocab_size"] = "290";
    if (settings["model_type"] == "bpe" || settings["model_type"] == "unigram") {
      models.push_back(test::trained_model(settings));
    }
  }
  return models;
}

TEST(Fuzz, SentencePiece) {
  const std::vector<std::string> words = {std::string("\x0A\x03\x0A\x01", 4) + "w",
                                          "\x12\x02\x18\x02", "\x1A\x02\x20\x01", "\u2581",
                                          std::string(1, '\0')};
  std::vector<std::int32_t> ids;
  fuzz(Mutator(seeds(), words), [&](const std::string& input) {
    const auto tokenizer = make_sentencepiece_tokenizer(input, "model");
    for (const std::string text :
         {"the captain's ship,  at SEA\n\t42 \u00e4\uFB01", "ABBA ABC \u4e2d\x80\xFF", "", " "}) {
      ids.clear();
      tokenizer->encode(text, ids);
      for (const std::int32_t id : ids) {
        EXPECT_TRUE(id >= 0 && id < tokenizer->vocabulary());
      }
      tokenizer->decode(ids);
    }
    for (std::int32_t id = 0; id < tokenizer->vocabulary(); ++id) {
      tokenizer->decode(std::span(&id, 1));
    }
  });
}

}  // namespace
}  // namespace cartesian
