#include "runtime/data/sentencepiece.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/random.h"
#include "runtime/data/sentencepiece_model.h"
#include "runtime/data/text_decoder.h"
#include "tests/support/expect_error.h"
#include "tests/support/sentencepiece_models.h"
#include "tests/support/temporary_directory.h"

namespace cartesian {
namespace {

using test::trained_model;

std::string train(const SentencePieceTraining& options) {
  std::vector<std::string> lines = test::training_lines();
  std::size_t next = 0;
  return train_sentencepiece(options, [&]() -> std::optional<std::string> {
    return next < lines.size() ? std::optional(lines[next++]) : std::nullopt;
  });
}

std::vector<std::int32_t> encode(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<std::int32_t> ids;
  tokenizer.encode(text, ids);
  return ids;
}

/// Texts of words, spaces, marks and lines in any order.
std::vector<std::string> random_texts(int count) {
  const std::vector<std::string> parts = {"whale",      "sea",
                                          "captain",    "a",
                                          " ",          " ",
                                          " ",          "  ",
                                          "\n",         "\t",
                                          ",",          "42",
                                          "7",          "\u00ef",
                                          "\u2581",     "\u4e2d",
                                          "</s>",       "<0x0A>",
                                          "   ",        "\n\n",
                                          "na\u00efve", "harpoonwhaleharpoonwhaleharpoonwhale"};
  std::vector<std::string> texts = {"", " ", "  ", "a", "a ", " a", "a  ", "\u2581 a", "a \u2581"};
  for (int i = 0; i < count; ++i) {
    const std::uint64_t key = random_key(1, fmt::format("text{}", i));
    std::string& text = texts.emplace_back();
    for (std::uint64_t j = 0; j < random_bits(key, 0) % 40; ++j) {
      text += parts[random_bits(key, j + 1) % parts.size()];
    }
  }
  return texts;
}

class Kinds : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Models, Kinds, testing::Values("bpe", "unigram"));

TEST_P(Kinds, KeepEveryTextAsItIs) {
  const auto tokenizer =
      make_sentencepiece_tokenizer(train({.vocabulary = 290, .model_type = GetParam()}), "m");
  EXPECT_EQ(tokenizer->vocabulary(), 290);
  EXPECT_EQ(tokenizer->end_of_document(), 2);
  for (const std::string& text : random_texts(300)) {
    if (text.find("\u2581") != std::string::npos) {
      continue;  // SentencePiece takes its mark for a space
    }
    const auto ids = encode(*tokenizer, text);
    for (const std::int32_t id : ids) {
      EXPECT_TRUE(id > 2 && id < 290) << id;  // no unknown, begin or end
    }
    EXPECT_EQ(tokenizer->decode(ids), text);
  }
}

TEST_P(Kinds, TheSameLinesGiveTheSameModel) {
  const SentencePieceTraining options{.vocabulary = 290, .model_type = GetParam()};
  EXPECT_EQ(train(options), train(options));
}

TEST_P(Kinds, EncodersGiveWhatTheTokenizerGives) {
  for (const auto& changes : std::vector<std::unordered_map<std::string, std::string>>{
           {},  // characters are normalized, spaces are removed
           {{"normalization_rule_name", "identity"}, {"remove_extra_whitespaces", "false"}},
           {{"normalization_rule_name", "identity"},
            {"remove_extra_whitespaces", "false"},
            {"split_by_whitespace", "false"}},  // pieces of several words
           {{"normalization_rule_name", "identity"},
            {"remove_extra_whitespaces", "false"},
            {"user_defined_symbols", "sea whale,ship,\u2581\u2581\u2581"}},
           {{"normalization_rule_name", "identity"},
            {"remove_extra_whitespaces", "false"},
            {"user_defined_symbols", "ship"},
            {"allow_whitespace_only_pieces", "true"}},
           {{"normalization_rule_name", "identity"},
            {"remove_extra_whitespaces", "false"},
            {"add_dummy_prefix", "false"}},
           {{"normalization_rule_name", "identity"},
            {"remove_extra_whitespaces", "false"},
            {"treat_whitespace_as_suffix", "true"}},
           {{"normalization_rule_name", "identity"},
            {"remove_extra_whitespaces", "false"},
            {"byte_fallback", "false"},
            {"hard_vocab_limit", "false"},
            {"vocab_size", "60"}}}) {
    auto settings = changes;
    settings["model_type"] = GetParam();
    const auto tokenizer = make_sentencepiece_tokenizer(trained_model(settings), "m");
    const auto encoder = tokenizer->make_encoder();
    for (const std::string& text : random_texts(400)) {
      std::vector<std::int32_t> ids;
      encoder->encode(text, ids);
      EXPECT_EQ(ids, encode(*tokenizer, text)) << '"' << text << '"';
    }
  }
}

TEST(SentencePieceTraining, SaysWhatCannotBeTrained) {
  expect_error<ConfigError>([] { train({.vocabulary = 100}); },
                            {"--vocabulary 100", "smaller than required"});
  expect_error<ConfigError>([] { train({.vocabulary = 100000}); },
                            {"--vocabulary 100000", "too high", "<="});
  expect_error<ConfigError>([] { train_sentencepiece({}, [] { return std::nullopt; }); },
                            {"--vocabulary 32000"});
}

TEST(SentencePieceTraining, LearnsFromLinesWithTabs) {
  std::size_t left = 200;
  const auto model = train_sentencepiece({.vocabulary = 270}, [&]() -> std::optional<std::string> {
    return left-- > 0 ? std::optional<std::string>("\tindented\tcode") : std::nullopt;
  });
  const auto tokenizer = make_sentencepiece_tokenizer(model, "m");
  EXPECT_LT(encode(*tokenizer, "indented").size(), 8U);
}

TEST(SentencePieceFile, IsAllThatAnotherMachineNeeds) {
  const TemporaryDirectory directory;
  const auto files = make_posix_file_system();
  const Path path = tokenizer_path(directory / "data");
  const auto tokenizer = make_sentencepiece_tokenizer(train({.vocabulary = 290}), "m");
  files->write_atomically(path, tokenizer->to_json());
  const auto loaded = load_tokenizer(*files, path);
  EXPECT_EQ(loaded->to_json(), tokenizer->to_json());
  EXPECT_EQ(loaded->model_file(), tokenizer->model_file());
  EXPECT_EQ(encode(*loaded, "the whale"), encode(*tokenizer, "the whale"));

  const auto expect_refused = [&](const std::string& from, const std::string& to,
                                  std::initializer_list<std::string> mentions) {
    std::string text = tokenizer->to_json();
    text.replace(text.find(from), from.size(), to);
    files->write_atomically(path, text);
    expect_error<FormatError>([&] { load_tokenizer(*files, path); }, {path.string()});
    expect_error<FormatError>([&] { load_tokenizer(*files, path); }, mentions);
  };
  expect_refused("290", "291", {"\"vocabulary\"", "291"});
  expect_refused("\"end_of_document\": 2", "\"end_of_document\": 1", {"\"end_of_document\""});
  expect_refused("\"model\": \"", "\"model\": \"?", {"\"model\"", "base64"});
  expect_refused("\"model\": \"", "\"model\": \"AAAA", {"SentencePiece"});
  expect_refused("\"model\"", "\"modell\"", {"modell"});
}

TEST(SentencePieceModel, MustEndDocuments) {
  expect_error<FormatError>(
      [] {
        make_sentencepiece_tokenizer(trained_model({{"eos_id", "-1"}}), "some.model");
      },
      {"some.model", "no end-of-sentence piece"});
}

TEST(SentencePieceModel, RefusesWhatIsNone) {
  const std::string model = trained_model({});
  const auto refused = [](std::string bytes, const std::string& why) {
    expect_error<FormatError>([&] { make_sentencepiece_tokenizer(bytes, "some.model"); },
                              {"some.model", why});
  };
  refused("", "no pieces");
  refused("hello, this is a text\n", "SentencePiece model");
  refused(model.substr(0, model.size() / 2), "SentencePiece model");
  refused(model.substr(0, model.size() - 1), "SentencePiece model");
  // A piece [text, score, type]: of no text, of a score that is not a number, of an unknown type.
  refused(model + std::string("\x0A\x00", 2), "piece 290 is not a text");
  refused(model + std::string("\x0A\x03\x0A\x01\x00", 5), "piece 290 is not a text");
  refused(model + std::string("\x0A\x08\x0A\x01x\x15\x00\x00\xC0\x7F", 10), "score of piece 290");
  refused(model + std::string("\x0A\x05\x0A\x01x\x18\x07", 7), "piece 290 has the unknown type 7");
  // A table of normalized characters that leads out of bounds.
  refused(model + std::string("\x1A\x0C\x12\x0A\x04\x00\x00\x00\xFF\xFF\xFF\xFF"
                              "a\x00",
                              14),
          "table of normalized characters");
  // What the library itself refuses: a piece twice.
  refused(model + std::string("\x0A\x03\x0A\x01w\x0A\x03\x0A\x01w", 10),
          "SentencePiece cannot use");
}

TEST(SentencePieceModel, KnowsTheLibrarysOwnTables) {
  for (const char* rule : {"nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf"}) {
    const std::string bytes = trained_model({{"normalization_rule_name", rule}});
    EXPECT_FALSE(parse_sentencepiece_model(bytes, "m").normalizer.charsmap.empty());
    const auto tokenizer = make_sentencepiece_tokenizer(bytes, "m");
    EXPECT_EQ(tokenizer->decode(encode(*tokenizer, "\uFF57\uFF48\uFF41\uFF4C\uFF45")), "whale");
  }
}

// What is printed of a continuation is the text of all its ids, and never half a character.
TEST(TextDecoder, GivesTheTextOfIdsOneByOne) {
  const auto pieces = make_sentencepiece_tokenizer(train({.vocabulary = 290}), "m");
  const auto bytes = make_byte_tokenizer();
  for (const Tokenizer* tokenizer : {pieces.get(), bytes.get()}) {
    for (const std::string text : {"the whale \u4e2d\u6587 na\u00efve", " two  spaces", "\u4e2d"}) {
      TextDecoder decoder(*tokenizer);
      std::string joined = decoder.add(tokenizer->end_of_document());
      for (const std::int32_t id : encode(*tokenizer, text)) {
        const std::string part = decoder.add(id);
        EXPECT_EQ(part.find("\uFFFD"), std::string::npos);
        joined += part;
      }
      EXPECT_EQ(joined + decoder.finish(), text);
    }
  }
}

TEST(TextDecoder, ShowsWhatStaysIncomplete) {
  const auto tokenizer = make_sentencepiece_tokenizer(train({.vocabulary = 290}), "m");
  std::vector<std::int32_t> ids = encode(*tokenizer, "a\u4e2d");
  ids.pop_back();  // the character's last byte
  TextDecoder decoder(*tokenizer);
  std::string text;
  for (const std::int32_t id : ids) {
    text += decoder.add(id);
  }
  EXPECT_EQ(text, "a");
  EXPECT_TRUE(decoder.finish().starts_with("\uFFFD"));
}

}  // namespace
}  // namespace cartesian
