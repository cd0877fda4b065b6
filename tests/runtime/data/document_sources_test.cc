#include "runtime/data/document_sources.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "runtime/data/tokenize.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_directory.h"

namespace cartesian {
namespace {

class DocumentSourcesTest : public testing::Test {
 protected:
  DocumentSourcesTest() {
    files_->write_atomically(directory_ / "one.txt", "aaaa\nbbbb\n");
    files_->write_atomically(directory_ / "two.txt", "cc\n");
    tokenize_texts(*files_, *make_byte_tokenizer(),
                   {.texts = {directory_ / "one.txt", directory_ / "two.txt"},
                    .prefix = prefix_,
                    .document_bytes = 5,
                    .progress = {}});
  }
  void write_sources(const std::string& json) {
    files_->write_atomically(Path(prefix_) += ".sources.json", json);
  }
  DocumentSources load() {
    const TokenFile tokens(*files_, prefix_);
    return {*files_, tokens};
  }

  TemporaryDirectory directory_;
  std::unique_ptr<FileSystem> files_ = make_posix_file_system();
  Path prefix_ = directory_ / "tokens";
};

TEST_F(DocumentSourcesTest, EveryTokenHasTheSourceOfItsDocument) {
  const DocumentSources sources = load();
  EXPECT_EQ(sources.names(), (std::vector<std::string>{"one.txt", "two.txt"}));
  // Two documents of five bytes and an end each, then one of three and an end.
  for (std::int64_t token = 0; token < 16; ++token) {
    EXPECT_EQ(sources.source_of(token), token < 12 ? 0U : 1U) << token;
  }
}

TEST_F(DocumentSourcesTest, RefusesWhatIsNotOfTheseTokens) {
  const std::string path = (Path(prefix_) += ".sources.json").string();
  for (const auto& [json, mention] :
       {std::pair{R"({"version": 1, "sources": ["a"], "documents": [0, 0]})", "2 documents"},
        {R"({"version": 1, "sources": ["a"], "documents": [0, 0, 1]})", "document 2"},
        {R"({"version": 1, "sources": ["a"], "documents": [0, 0, -1]})", "document 2"},
        {R"({"version": 2, "sources": ["a"], "documents": [0, 0, 0]})", "version"},
        {R"({"version": 1, "sources": [3], "documents": [0, 0, 0]})", "names"},
        {R"({"version": 1, "documents": [0, 0, 0]})", "sources"},
        {"[]", ""}}) {
    write_sources(json);
    expect_error<FormatError>([&] { load(); }, {path, mention});
  }
}

}  // namespace
}  // namespace cartesian
