#include "runtime/data/document_stream.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "base/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_directory.h"

namespace cartesian {
namespace {

class Documents : public testing::Test {
 protected:
  /// A text of `count` documents, each a line of 100 bytes.
  void add_text(const std::string& name, int count) {
    const auto file = files_->create(texts_ / name);
    for (int i = 0; i < count; ++i) {
      file->append(fmt::format("{:<99}\n", fmt::format("{} {}", name, i)));
    }
    file->close();
    options_.texts.push_back(texts_ / name);
  }
  std::vector<TextDocument> all() {
    std::vector<TextDocument> documents;
    const auto stream = open_documents(*files_, options_);
    while (auto document = stream->next()) {
      document->forget();  // the text can still be read
      documents.push_back(std::move(*document));
    }
    return documents;
  }
  static std::vector<std::string> texts_of(const std::vector<TextDocument>& documents) {
    std::vector<std::string> texts;
    for (const TextDocument& document : documents) {
      texts.emplace_back(document.text);
    }
    return texts;
  }

  TemporaryDirectory texts_;
  std::unique_ptr<FileSystem> files_ = make_posix_file_system();
  TokenizeOptions options_{.texts = {}, .prefix = {}, .document_bytes = 150, .progress = {}};
};

TEST_F(Documents, FollowEachOtherAsInTheTexts) {
  add_text("a", 3);
  add_text("b", 2);
  const auto documents = all();
  ASSERT_EQ(documents.size(), 5U);
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(documents[i].source, i < 3 ? 0 : 1);
    EXPECT_EQ(documents[i].offset, static_cast<std::int64_t>(100 * (i < 3 ? i : i - 3)));
    EXPECT_TRUE(documents[i].text.starts_with(fmt::format("{} ", i < 3 ? "a" : "b")));
  }
}

TEST_F(Documents, OfAMixtureHaveTheirSharesAllTheWayThrough) {
  add_text("a", 600);
  add_text("b", 100);
  add_text("c", 300);
  options_.corpora = {{.weight = 1, .texts = 2}, {.weight = 3, .texts = 1}};
  std::map<std::string, int> uses;
  const auto documents = all();
  EXPECT_EQ(documents.size(), 1000U);
  int second = 0;
  for (std::size_t i = 0; i < documents.size(); ++i) {
    second += documents[i].source == 2 ? 1 : 0;
    EXPECT_NEAR(second, 0.75 * static_cast<double>(i + 1), 1.0);
    ++uses[std::string(documents[i].text)];
  }
  // 250 of the first corpus's 700, once each; of the second's 300 two readings and a half.
  EXPECT_EQ(second, 750);
  for (const auto& [text, count] : uses) {
    EXPECT_TRUE(text[0] == 'c' ? count == 2 || count == 3 : count == 1) << text << count;
  }
  EXPECT_EQ(uses.size(), 250U + 300U);
}

TEST_F(Documents, OfAMixtureComeInARandomOrderOfTheSeed) {
  add_text("a", 50);
  add_text("b", 50);
  options_.corpora = {{.weight = 0.5, .texts = 1}, {.weight = 0.5, .texts = 1}};
  const auto first = texts_of(all());
  EXPECT_EQ(texts_of(all()), first);
  options_.seed = 2;
  const auto other = texts_of(all());
  EXPECT_NE(other, first);
  EXPECT_TRUE(std::is_permutation(other.begin(), other.end(), first.begin(), first.end()));
}

TEST_F(Documents, HeldOutOfAMixtureAreThoseOfTheTexts) {
  add_text("a", 100);
  add_text("b", 100);
  options_.held_out = 0.1;
  const auto held_out = [&] {
    auto documents = all();
    std::erase_if(documents, [](const TextDocument& document) { return !document.held_out; });
    return texts_of(documents);
  };
  const auto unmixed = held_out();
  EXPECT_EQ(unmixed.size(), 20U);
  options_.corpora = {{.weight = 1, .texts = 1}, {.weight = 9, .texts = 1}};
  EXPECT_EQ(held_out(), unmixed);
  for (const TextDocument& document : all()) {
    const bool is_one = std::ranges::find(unmixed, document.text) != unmixed.end();
    EXPECT_EQ(document.held_out, is_one);  // never among those to train on
  }
}

TEST_F(Documents, OfACorpusMustNotAllBeHeldOut) {
  add_text("a", 1);
  add_text("b", 1);
  options_.held_out = 0.5;
  options_.corpora = {{.weight = 1, .texts = 1}, {.weight = 1, .texts = 1}};
  expect_error<ConfigError>([&] { all(); }, {"--corpus number 1", "--held-out"});
}

}  // namespace
}  // namespace cartesian
