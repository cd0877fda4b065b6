#include "runtime/data/tokenizer.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_directory.h"

namespace cartesian {
namespace {

TEST(ByteTokenizer, RoundTripsEveryByte) {
  const auto tokenizer = make_byte_tokenizer();
  std::string text;
  for (int byte = 0; byte < 256; ++byte) {
    text.push_back(static_cast<char>(byte));
  }
  std::vector<std::int32_t> ids = {7};
  tokenizer->encode(text, ids);  // appends
  ASSERT_EQ(ids.size(), 257U);
  EXPECT_EQ(ids[0], 7);
  for (std::int32_t byte = 0; byte < 256; ++byte) {
    EXPECT_EQ(ids[static_cast<std::size_t>(byte) + 1], byte);
  }
  EXPECT_EQ(tokenizer->decode(std::span(ids).subspan(1)), text);
}

TEST(ByteTokenizer, IdsWithoutTextGiveNone) {
  const auto tokenizer = make_byte_tokenizer();
  EXPECT_EQ(tokenizer->vocabulary(), 257);
  EXPECT_EQ(tokenizer->end_of_document(), 256);
  const std::vector<std::int32_t> ids = {'a', 256, 'b', 319, -1};
  EXPECT_EQ(tokenizer->decode(ids), "ab");
}

class TokenizerFile : public testing::Test {
 protected:
  std::unique_ptr<Tokenizer> load(const std::string& text) {
    files_->write_atomically(path_, text);
    return load_tokenizer(*files_, path_);
  }
  void expect_refused(const std::string& text, std::initializer_list<std::string> mentions) {
    expect_error<FormatError>([&] { load(text); }, {path_.string()});
    expect_error<FormatError>([&] { load(text); }, mentions);
  }

  TemporaryDirectory directory_;
  std::unique_ptr<FileSystem> files_ = make_posix_file_system();
  Path path_ = tokenizer_path(directory_ / "data");
};

TEST_F(TokenizerFile, RoundTrips) {
  EXPECT_EQ(path_.filename(), "data.tokenizer.json");
  const auto tokenizer = load(make_byte_tokenizer()->to_json());
  EXPECT_EQ(tokenizer->vocabulary(), 257);
  EXPECT_EQ(load(R"({"kind":"bytes","vocabulary":257,"end_of_document":256})")->to_json(),
            tokenizer->to_json());
}

TEST_F(TokenizerFile, RefusesWhatIsWrong) {
  expect_refused("", {"not valid JSON"});
  expect_refused("[]", {"object"});
  expect_refused("{}", {"\"kind\"", "missing"});
  expect_refused(R"({"kind":1})", {"\"kind\"", "string"});
  expect_refused(R"({"kind":"byte"})", {"\"byte\"", "did you mean 'bytes'"});
  expect_refused(R"({"kind":"bytes"})", {"\"vocabulary\"", "missing"});
  expect_refused(R"({"kind":"bytes","vocabulary":256,"end_of_document":256})", {"\"vocabulary\""});
  expect_refused(R"({"kind":"bytes","vocabulary":257,"end_of_document":-1})",
                 {"\"end_of_document\"", "-1"});
  expect_refused(R"({"kind":"bytes","vocabulary":257,"end_of_document":256,"x":1})", {"\"x\""});
  expect_error<FileError>([&] { load_tokenizer(*files_, directory_ / "absent"); },
                          {"absent", "No such file"});
}

}  // namespace
}  // namespace cartesian
