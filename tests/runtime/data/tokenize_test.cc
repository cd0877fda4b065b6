#include "runtime/data/tokenize.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "runtime/data/document_splitter.h"
#include "runtime/data/sentencepiece.h"
#include "runtime/data/sources_writer.h"
#include "runtime/data/token_file.h"
#include "runtime/data/tokenizer_training.h"
#include "tests/support/expect_error.h"
#include "tests/support/faulty_file_system.h"
#include "tests/support/sentencepiece_models.h"
#include "tests/support/temporary_directory.h"

namespace cartesian {
namespace {

using Names = std::vector<std::string>;

constexpr std::int32_t kEnd = 256;

class Tokenize : public testing::Test {
 protected:
  Path write(const std::string& name, std::string_view text) {
    files_->create_directories((texts_ / name).parent_path());
    const auto file = files_->create(texts_ / name);
    file->append(text);
    file->close();
    return texts_ / name;
  }
  TokenizeResult tokenize(FileSystem& files) {
    return tokenize_texts(files, *make_byte_tokenizer(), options_);
  }
  TokenizeResult tokenize() { return tokenize(*files_); }
  std::vector<std::int32_t> tokens_of(const Path& prefix) {
    const TokenFile file(*files_, prefix);
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(file.tokens()));
    file.read(0, tokens);
    return tokens;
  }
  /// The documents' texts, by the tokens that end them.
  Names documents_of(const Path& prefix) {
    Names documents(1);
    for (const std::int32_t token : tokens_of(prefix)) {
      if (token == kEnd) {
        documents.emplace_back();
      } else {
        documents.back().push_back(static_cast<char>(token));
      }
    }
    EXPECT_EQ(documents.back(), "");  // the file ends with an end of a document
    documents.pop_back();
    return documents;
  }
  nlohmann::json sources_of(const Path& prefix) {
    return nlohmann::json::parse(files_->read(sources_path(prefix)));
  }
  template <class Expected>
  void expect_refused(std::initializer_list<std::string> mentions) {
    expect_error<Expected>([&] { tokenize(); }, mentions);
    EXPECT_EQ(files_->list(out_.path()), Names{});
  }

  TemporaryDirectory texts_;
  TemporaryDirectory out_;
  std::unique_ptr<FileSystem> files_ = make_posix_file_system();
  TokenizeOptions options_{.texts = {}, .prefix = out_ / "data", .progress = {}};
};

std::string numbered_lines(const std::string& word, int lines) {
  std::string text;
  for (int i = 0; i < lines; ++i) {
    text += fmt::format("{} {}\n", word, i);
  }
  return text;
}

TEST_F(Tokenize, WritesDocumentsTokenizerAndSources) {
  options_.texts = {write("a.txt", "one\ntwo\nthree\n"), write("b.txt", "vier \u00e4\n")};
  options_.document_bytes = 8;
  const TokenizeResult result = tokenize();
  EXPECT_EQ(documents_of(options_.prefix), (Names{"one\ntwo\n", "three\n", "vier \u00e4\n"}));
  EXPECT_EQ(result.documents, 3);
  EXPECT_EQ(result.tokens, 8 + 6 + 8 + 3);
  EXPECT_EQ(result.held_out_documents, 0);
  EXPECT_EQ(files_->list(out_.path()),
            (Names{"data.bin", "data.idx", "data.sources.json", "data.tokenizer.json"}));
  EXPECT_EQ(load_tokenizer(*files_, tokenizer_path(options_.prefix))->vocabulary(), 257);
  EXPECT_EQ(
      sources_of(options_.prefix),
      nlohmann::json::parse(R"({"version":1,"sources":["a.txt","b.txt"],"documents":[0,0,1]})"));
  EXPECT_EQ(TokenFile(*files_, options_.prefix).documents(), 3);
}

TEST_F(Tokenize, HoldsOutDocumentsSpreadThroughEveryText) {
  options_.texts = {write("a", numbered_lines("alpha", 2000)),
                    write("b", numbered_lines("beta", 1000))};
  options_.document_bytes = 128;
  options_.held_out = 0.1;
  const TokenizeResult result = tokenize();
  const std::int64_t all = result.documents + result.held_out_documents;
  EXPECT_NEAR(static_cast<double>(result.held_out_documents), static_cast<double>(all) * 0.1, 0.51);

  const Path valid = held_out_prefix(options_.prefix);
  EXPECT_EQ(valid.filename(), "data-valid");
  // Nothing is lost, and nothing is in both.
  Names train_documents = documents_of(options_.prefix);
  Names lines = documents_of(valid);
  EXPECT_EQ(static_cast<std::int64_t>(lines.size()), result.held_out_documents);
  EXPECT_EQ(sources_of(valid)["documents"].size(), lines.size());
  lines.insert(lines.end(), train_documents.begin(), train_documents.end());
  std::size_t bytes = 0;
  for (const std::string& document : lines) {
    bytes += document.size();
  }
  EXPECT_EQ(bytes, files_->size(options_.texts[0]) + files_->size(options_.texts[1]));
  std::sort(lines.begin(), lines.end());
  EXPECT_EQ(std::unique(lines.begin(), lines.end()), lines.end());

  // A tenth of each text, give or take one document.
  for (int source = 0; source < 2; ++source) {
    const auto count = [&](const Path& prefix) {
      const auto documents = sources_of(prefix)["documents"];
      return static_cast<double>(std::count(documents.begin(), documents.end(), source));
    };
    EXPECT_NEAR(count(valid), 0.1 * (count(valid) + count(options_.prefix)), 1.0);
  }
  EXPECT_TRUE(files_->exists(tokenizer_path(valid)));
}

TEST_F(Tokenize, RepeatsItself) {
  options_.texts = {write("a", numbered_lines("alpha", 500))};
  options_.document_bytes = 64;
  options_.held_out = 0.07;
  tokenize();
  const auto first = tokens_of(held_out_prefix(options_.prefix));
  tokenize();  // over the old files
  EXPECT_EQ(tokens_of(held_out_prefix(options_.prefix)), first);
}

TEST_F(Tokenize, RefusesTextsByName) {
  const Path good = write("good", "fine\n");
  const Path bad = write("bad", "fine \u00e4 then \xE4\n");
  options_.texts = {good, bad};
  expect_refused<FormatError>({bad.string(), "byte 13", "0xE4", "UTF-8", "--encoding bytes"});
  options_.texts = {good, write("empty", "")};
  expect_refused<FormatError>({(texts_ / "empty").string(), "empty"});
  options_.texts = {good, texts_ / "absent"};
  expect_refused<FileError>({(texts_ / "absent").string(), "No such file"});
  options_.texts = {good, texts_.path()};
  expect_refused<FileError>({texts_.path().string(), "regular"});
  options_.texts = {good, texts_ / "./good"};
  expect_refused<ConfigError>({"good", "twice"});
  options_.texts = {};
  expect_refused<ConfigError>({"text"});
}

TEST_F(Tokenize, CountsBadBytesFromTheTextsBeginning) {
  std::string text = numbered_lines("line", 1000);
  const std::size_t at = text.size() - 100;
  text[at] = '\xC0';
  options_.texts = {write("late", text)};
  options_.document_bytes = 32;
  expect_refused<FormatError>({(texts_ / "late").string(), fmt::format("byte {} ", at)});
}

TEST_F(Tokenize, TakesAnyBytesWhenTold) {
  std::string bytes;
  for (int i = 0; i < 1000; ++i) {
    bytes.push_back(static_cast<char>(i * 37));
  }
  options_.texts = {write("bytes", bytes)};
  options_.encoding = parse_text_encoding("bytes");
  options_.document_bytes = 100;
  tokenize();
  std::string joined;
  for (const std::string& document : documents_of(options_.prefix)) {
    joined += document;
  }
  EXPECT_EQ(joined, bytes);
}

TEST_F(Tokenize, RefusesOptionsThatCannotWork) {
  options_.texts = {write("a", "only one document\n")};
  for (const double share : {-0.1, 1.0, std::nan("")}) {
    options_.held_out = share;
    expect_refused<ConfigError>({"--held-out"});
  }
  options_.held_out = 0.01;
  expect_refused<ConfigError>({"--held-out", "--document-bytes", "0 held out"});
  options_.held_out = 0.99;
  expect_refused<ConfigError>({"--held-out", "0 to train on"});
  options_.held_out = 0.0;
  for (const std::int64_t bytes : {std::int64_t{-1}, std::int64_t{3}, std::int64_t{1} << 40}) {
    options_.document_bytes = bytes;
    expect_refused<ConfigError>({"--document-bytes", std::to_string(bytes)});
  }
  expect_error<ConfigError>([] { parse_text_encoding("utf-8"); },
                            {"--encoding", "utf-8", "did you mean 'utf8'"});
}

TEST_F(Tokenize, DoesNotOverwriteATextWithItsTokens) {
  for (const char* name :
       {"dump.bin", "dump.idx", "dump.tokenizer.json", "dump.sources.json.tmp", "dump-valid.bin"}) {
    options_.texts = {write(name, "a text\n")};
    options_.prefix = texts_ / "dump";
    expect_error<ConfigError>([&] { tokenize(); }, {name, "overwritten", "--output"});
    EXPECT_EQ(files_->read(texts_ / name), "a text\n");
    files_->remove_all(texts_ / name);
  }
}

TEST_F(Tokenize, NamesTextsOfOneFileNameByTheirPaths) {
  options_.texts = {write("x/same", "1\n"), write("y/same", "2\n"), write("other", "3\n")};
  options_.prefix = out_ / "deep/er/data";  // created as needed
  tokenize();
  const auto sources = sources_of(options_.prefix)["sources"];
  EXPECT_EQ(sources[0], (texts_ / "x/same").string());
  EXPECT_EQ(sources[1], (texts_ / "y/same").string());
  EXPECT_EQ(sources[2], "other");
}

TEST_F(Tokenize, ReportsProgress) {
  options_.texts = {write("a", numbered_lines("a", 100)), write("b", numbered_lines("b", 50))};
  options_.document_bytes = 50;
  std::vector<TokenizeProgress> reports;
  options_.progress = [&](const TokenizeProgress& progress) { reports.push_back(progress); };
  const TokenizeResult result = tokenize();
  EXPECT_EQ(static_cast<std::int64_t>(reports.size()), result.documents);
  EXPECT_EQ(reports.back().bytes_done, reports.back().bytes_total);
  EXPECT_TRUE(std::is_sorted(reports.begin(), reports.end(), [](const auto& a, const auto& b) {
    return a.bytes_done < b.bytes_done;
  }));
}

/// Texts of two sources, long enough for several batches of documents.
std::string words(std::size_t bytes, std::size_t step) {
  const std::vector<std::string> lines = test::training_lines();
  std::string text;
  for (std::size_t i = 0; text.size() < bytes; i += step) {
    text += lines[i % lines.size()] + "\n";
  }
  return text;
}

TEST_F(Tokenize, WithSentencePieceIsTheSameForAnyThreads) {
  options_.texts = {write("a", words(4 << 20, 1)), write("b", words(1 << 20, 7))};
  options_.held_out = 0.1;
  const auto tokenizer = make_sentencepiece_tokenizer(test::trained_model({}), "m");
  std::vector<Names> written;
  for (const int threads : {1, 3}) {
    options_.threads = threads;
    tokenize_texts(*files_, *tokenizer, options_);
    Names& contents = written.emplace_back();
    const Names names = files_->list(out_.path());
    EXPECT_EQ(names.size(), 10U);
    for (const std::string& name : names) {
      contents.push_back(files_->read(out_ / name));
    }
  }
  EXPECT_TRUE(written[0] == written[1]);

  const auto tokens = tokens_of(options_.prefix);
  std::string joined;
  for (auto begin = tokens.begin(); begin != tokens.end();) {
    const auto end = std::find(begin, tokens.end(), tokenizer->end_of_document());
    ASSERT_NE(end, tokens.end());
    joined += tokenizer->decode({begin, end}) + "\n";  // its default rules remove line ends
    begin = end + 1;
  }
  EXPECT_TRUE(joined.starts_with(test::training_lines()[0].substr(0, 20)));
}

TEST_F(Tokenize, RefusesTheFirstBadTextForAnyThreads) {
  std::string text = words(3 << 20, 1);
  text[40000] = '\xFF';
  text[2000000] = '\xFE';
  options_.texts = {write("a", text)};
  for (const int threads : {1, 4}) {
    options_.threads = threads;
    expect_refused<FormatError>({"byte 40000 (0xFF)"});
  }
}

TEST_F(Tokenize, TrainsOnWhatIsNotHeldOut) {
  const std::string all_text = words(200000, 1);
  options_.texts = {write("a", all_text)};
  options_.held_out = 0.5;
  const auto all = train_tokenizer(*files_, options_, {.vocabulary = 300});
  EXPECT_EQ(all->vocabulary(), 300);
  EXPECT_EQ(train_tokenizer(*files_, options_, {.vocabulary = 300})->to_json(), all->to_json());
  // What is held out does not matter: in every second document another word comes instead.
  std::string text;
  DocumentSplitter splitter(std::as_bytes(std::span(all_text)), options_.document_bytes);
  for (int i = 0; const auto document = splitter.next(); ++i) {
    text += i % 2 == 1 ? document->text : std::string(document->text.size() - 1, 'z') + "\n";
  }
  options_.texts = {write("a", text)};
  EXPECT_EQ(train_tokenizer(*files_, options_, {.vocabulary = 300})->to_json(), all->to_json());

  tokenize_texts(*files_, *all, options_);
  EXPECT_TRUE(files_->exists(tokenizer_model_path(options_.prefix)));
  EXPECT_EQ(files_->read(tokenizer_model_path(options_.prefix)), all->model_file());
  options_.held_out = 0;
  tokenize();  // with bytes: the other tokenizer's model goes, but not that of other files
  EXPECT_FALSE(files_->exists(tokenizer_model_path(options_.prefix)));
  EXPECT_TRUE(files_->exists(tokenizer_model_path(held_out_prefix(options_.prefix))));
}

TEST_F(Tokenize, TrainsOnASampleThatDependsOnTheSeedOnly) {
  options_.texts = {write("a", words(400000, 1) + words(400000, 7))};
  options_.document_bytes = 1000;
  const auto train = [&](std::int64_t bytes) {
    return train_tokenizer(*files_, options_, {.vocabulary = 300, .bytes = bytes})->to_json();
  };
  const std::string sample = train(20000);
  EXPECT_EQ(train(20000), sample);
  EXPECT_NE(train(800000), sample);
  // However small the sample is, it is one: the last document is cut.
  EXPECT_EQ(train_tokenizer(*files_, options_, {.vocabulary = 290, .bytes = 700})->vocabulary(),
            290);
  options_.seed = 2;
  EXPECT_NE(train(20000), sample);
  options_.texts = {write("a", "fine\n"), write("bad", "fine then \xE4\n")};
  expect_error<FormatError>([&] { train(20000); }, {"bad", "byte 10", "UTF-8"});
}

TEST_F(Tokenize, AFullDiskLeavesNothingBehind) {
  options_.texts = {write("a", numbered_lines("a", 100))};
  options_.document_bytes = 200;
  options_.held_out = 0.2;
  FaultyFileSystem counting(*files_);
  tokenize(counting);
  for (std::int64_t n = 0; n < counting.operations(); ++n) {
    for (const std::string& name : files_->list(out_.path())) {
      files_->remove_all(out_ / name);
    }
    FaultyFileSystem faulty(*files_);
    faulty.fail_at(n, Fault::no_space);
    expect_error<FileError>([&] { tokenize(faulty); }, {"No space left on device"});
    EXPECT_EQ(files_->list(out_.path()), Names{}) << n;
  }
}

TEST_F(Tokenize, ACrashLeavesNoPairThatLooksWhole) {
  options_.texts = {write("a", numbered_lines("a", 60))};
  options_.document_bytes = 100;
  FaultyFileSystem counting(*files_);
  tokenize(counting);
  const auto whole = tokens_of(options_.prefix);
  for (const Fault fault : {Fault::crash, Fault::power_cut}) {
    for (std::int64_t n = 0; n < counting.operations(); ++n) {
      FaultyFileSystem faulty(*files_);
      faulty.fail_at(n, fault);
      EXPECT_THROW(tokenize(faulty), FileError);
      if (files_->exists(token_index_path(options_.prefix))) {
        EXPECT_EQ(tokens_of(options_.prefix), whole) << n;
      }
    }
  }
}

}  // namespace
}  // namespace cartesian
