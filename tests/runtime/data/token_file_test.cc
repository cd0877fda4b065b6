#include "runtime/data/token_file.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "base/error.h"
#include "runtime/data/token_file_writer.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_directory.h"

namespace cartesian {
namespace {

template <class T>
std::string bytes_of(std::initializer_list<T> values) {
  std::string bytes;
  for (const T value : values) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof(T));
  }
  return bytes;
}

/// The fields of an index, to be damaged one by one. Three documents: 3, 0 and 2 tokens.
struct Index {
  std::string magic = std::string("MMIDIDX\0\0", 9);
  std::uint64_t version = 1;
  std::uint8_t type = 8;
  std::uint64_t sequences = 3;
  std::uint64_t bounds = 4;
  std::string lengths = bytes_of<std::int32_t>({3, 0, 2});
  std::string offsets = bytes_of<std::int64_t>({0, 6, 6});
  std::string documents = bytes_of<std::int64_t>({0, 1, 2, 3});

  std::string bytes() const {
    return magic + bytes_of({version}) + bytes_of({type}) + bytes_of({sequences}) +
           bytes_of({bounds}) + lengths + offsets + documents;
  }
};

class TokenFiles : public testing::Test {
 protected:
  void write(const Path& path, std::string_view bytes) {
    const auto file = files_->create(path);
    file->append(bytes);
    file->close();
  }
  TokenFile open(const std::string& data, const std::string& index) {
    write(token_data_path(prefix_), data);
    write(token_index_path(prefix_), index);
    return {*files_, prefix_};
  }
  void expect_refused(const Index& index, std::initializer_list<std::string> mentions) {
    expect_error<FormatError>([&] { open(data_, index.bytes()); }, {prefix_.string() + ".idx"});
    expect_error<FormatError>([&] { open(data_, index.bytes()); }, mentions);
  }
  void write_documents(std::int64_t vocabulary,
                       const std::vector<std::vector<std::int32_t>>& documents) {
    StagedFiles staged(*files_);
    TokenFileWriter writer(staged, prefix_, vocabulary);
    for (const auto& document : documents) {
      const std::span<const std::int32_t> tokens(document);
      writer.append(tokens.first(tokens.size() / 2));
      writer.append(tokens.subspan(tokens.size() / 2));
      writer.end_document();
    }
    writer.finish();
    staged.publish();
  }

  TemporaryDirectory directory_;
  std::unique_ptr<FileSystem> files_ = make_posix_file_system();
  Path prefix_ = directory_ / "data";
  std::string data_ = bytes_of<std::uint16_t>({7, 8, 65535, 9, 10});
};

std::vector<std::int32_t> read(const TokenFile& file, std::int64_t offset, std::size_t count) {
  std::vector<std::int32_t> tokens(count);
  file.read(offset, tokens);
  return tokens;
}

TEST_F(TokenFiles, ReadsAHandBuiltPair) {
  const TokenFile file = open(data_, Index().bytes());
  EXPECT_EQ(file.type(), TokenType::u16);
  EXPECT_EQ(file.tokens(), 5);
  EXPECT_EQ(file.sequences(), 3);
  EXPECT_EQ(file.documents(), 3);
  EXPECT_EQ(read(file, 0, 5), (std::vector{7, 8, 65535, 9, 10}));
  EXPECT_EQ(read(file, 3, 1), std::vector{9});
  EXPECT_EQ(read(file, 5, 0), std::vector<std::int32_t>{});
}

TEST_F(TokenFiles, FindsWhereDocumentsBegin) {
  write_documents(257, {{1, 2, 3}, {4}, {}, {5, 6}, {}});
  const TokenFile file(*files_, prefix_);
  const std::vector<std::int32_t> begins = {0, 0, 0, 3, 4, 4};  // of each token's document
  for (std::int64_t offset = 0; offset <= 6; ++offset) {
    for (std::int64_t count = 0; offset + count <= 6; ++count) {
      std::vector<std::int32_t> starts(static_cast<std::size_t>(count), -1);
      file.document_starts(offset, starts);
      for (std::size_t i = 0; i < starts.size(); ++i) {
        const auto first = static_cast<std::int32_t>(offset);
        EXPECT_EQ(starts[i], std::max(0, begins[static_cast<std::size_t>(offset) + i] - first));
      }
    }
  }
}

// Byte by byte what Megatron-LM's IndexedDatasetBuilder writes for documents [1, 2, 3] and [4].
TEST_F(TokenFiles, WritesMegatronsBytes) {
  write_documents(257, {{1, 2, 3}, {4}});
  EXPECT_EQ(files_->read(token_data_path(prefix_)), std::string("\1\0\2\0\3\0\4\0", 8));
  const std::string index = std::string("MMIDIDX\0\0", 9) +       //
                            std::string("\1\0\0\0\0\0\0\0", 8) +  // version
                            std::string("\10", 1) +               // uint16
                            std::string("\2\0\0\0\0\0\0\0", 8) +  // sequences
                            std::string("\3\0\0\0\0\0\0\0", 8) +  // document bounds
                            std::string("\3\0\0\0\1\0\0\0", 8) +  // lengths
                            std::string("\0\0\0\0\0\0\0\0", 8) +  // byte offsets
                            std::string("\6\0\0\0\0\0\0\0", 8) +  //
                            std::string("\0\0\0\0\0\0\0\0", 8) +  // documents
                            std::string("\1\0\0\0\0\0\0\0", 8) +  //
                            std::string("\2\0\0\0\0\0\0\0", 8);
  EXPECT_EQ(files_->read(token_index_path(prefix_)), index);
}

TEST_F(TokenFiles, RoundTripsAnyVocabulary) {
  for (const std::int32_t vocabulary : {2, 257, 65499, 65500, 100'000, 2'000'000'000}) {
    std::vector<std::vector<std::int32_t>> documents(50);
    std::vector<std::int32_t> all;
    for (std::size_t i = 0; i < documents.size(); ++i) {
      for (std::size_t j = 0; j < i * i; ++j) {
        documents[i].push_back(static_cast<std::int32_t>((i * 7919 + j * 104729) %
                                                         static_cast<std::size_t>(vocabulary)));
      }
      all.insert(all.end(), documents[i].begin(), documents[i].end());
    }
    write_documents(vocabulary, documents);
    const TokenFile file(*files_, prefix_);
    EXPECT_EQ(file.type(), vocabulary < 65500 ? TokenType::u16 : TokenType::i32);
    EXPECT_EQ(file.documents(), 50);
    EXPECT_EQ(read(file, 0, all.size()), all);
    file.check_vocabulary(vocabulary);
  }
}

TEST_F(TokenFiles, NothingRoundTrips) {
  write_documents(257, {});
  const TokenFile file(*files_, prefix_);
  EXPECT_EQ(file.tokens(), 0);
  EXPECT_EQ(file.documents(), 0);
  file.check_vocabulary(1);
}

TEST_F(TokenFiles, ReadsEveryIntegerType) {
  const auto open_as = [&](TokenType type, const std::string& data) {
    Index index;
    index.type = static_cast<std::uint8_t>(type);
    index.sequences = 1;
    index.bounds = 2;
    index.lengths = bytes_of<std::int32_t>({3});
    index.offsets = bytes_of<std::int64_t>({0});
    index.documents = bytes_of<std::int64_t>({0, 1});
    return open(data, index.bytes());
  };
  EXPECT_EQ(read(open_as(TokenType::u8, bytes_of<std::uint8_t>({1, 2, 255})), 0, 3),
            (std::vector{1, 2, 255}));
  EXPECT_EQ(read(open_as(TokenType::i16, bytes_of<std::int16_t>({1, -2, 300})), 0, 3),
            (std::vector{1, -2, 300}));
  EXPECT_EQ(read(open_as(TokenType::i32, bytes_of<std::int32_t>({1, -2, 70'000})), 0, 3),
            (std::vector{1, -2, 70'000}));
  EXPECT_EQ(read(open_as(TokenType::i64, bytes_of<std::int64_t>({1, -2, 70'000})), 0, 3),
            (std::vector{1, -2, 70'000}));
  const TokenFile wide = open_as(TokenType::i64, bytes_of<std::int64_t>({1, 1LL << 32, 3}));
  EXPECT_EQ(read(wide, 2, 1), std::vector{3});
  expect_error<FormatError>([&] { read(wide, 0, 3); }, {".bin", "4294967296", "position 1"});
  expect_error<FormatError>([&] { wide.check_vocabulary(1LL << 32); },
                            {"4294967296", "position 1"});
  const TokenFile negative = open_as(TokenType::i16, bytes_of<std::int16_t>({1, 2, -3}));
  expect_error<FormatError>([&] { negative.check_vocabulary(257); }, {"-3", "position 2"});
}

TEST_F(TokenFiles, ChecksTheVocabulary) {
  std::vector<std::int32_t> document(20'000, 5);
  document[12'345] = 256;
  document[12'346] = 256;
  write_documents(257, {document});
  const TokenFile file(*files_, prefix_);
  file.check_vocabulary(257);
  expect_error<FormatError>([&] { file.check_vocabulary(256); },
                            {prefix_.string() + ".bin", "256", "position 12345"});
}

TEST_F(TokenFiles, RefusesHostileHeaders) {
  const auto refuse = [&](auto damage, std::initializer_list<std::string> mentions) {
    Index index;
    damage(index);
    expect_refused(index, mentions);
  };
  refuse([](Index& i) { i.magic[0] = 'X'; }, {"MMIDIDX"});
  refuse([](Index& i) { i.magic[8] = 'X'; }, {"MMIDIDX"});
  refuse([](Index& i) { i.version = 2; }, {"version 2"});
  refuse([](Index& i) { i.version = ~0ULL; }, {"version 18446744073709551615"});
  for (const int type : {0, 2, 6, 7, 9, 255}) {
    refuse([&](Index& i) { i.type = static_cast<std::uint8_t>(type); },
           {fmt::format("token type {}", type)});
  }
  for (const std::uint64_t count : {5ULL, 1ULL << 31, 1ULL << 61, 1ULL << 63, ~0ULL}) {
    refuse([&](Index& i) { i.sequences = count; }, {std::to_string(count), "do not fit"});
    refuse([&](Index& i) { i.bounds = count; }, {std::to_string(count), "do not fit"});
  }
  refuse([](Index& i) { i.sequences = 2; }, {"12 bytes follow"});
  refuse([](Index& i) { i.bounds = 0; }, {"32 bytes follow"});
  refuse([](Index& i) { i.documents += 'x'; }, {"1 bytes follow"});
  refuse([](Index& i) { i.bounds = 0, i.documents.clear(); }, {"no document bounds"});
}

TEST_F(TokenFiles, RefusesHostileSequences) {
  constexpr auto kMin = std::numeric_limits<std::int64_t>::min();
  constexpr auto kMax = std::numeric_limits<std::int64_t>::max();
  const auto refuse_lengths = [&](std::initializer_list<std::int32_t> lengths,
                                  std::initializer_list<std::string> mentions) {
    Index index;
    index.lengths = bytes_of(lengths);
    expect_refused(index, mentions);
  };
  refuse_lengths({-1, 0, 2}, {"sequence 0", "-1"});
  refuse_lengths({3, 0, 2147483647}, {"sequence 2", "2147483647", "10 bytes"});
  refuse_lengths({3, 0, 3}, {"sequence 2", "beyond"});
  refuse_lengths({2, 0, 2}, {"sequence 1", "6 instead of 4"});
  refuse_lengths({3, 0, 1}, {"10 bytes", "describes 8"});
  const auto refuse_offsets = [&](std::initializer_list<std::int64_t> offsets,
                                  std::initializer_list<std::string> mentions) {
    Index index;
    index.offsets = bytes_of(offsets);
    expect_refused(index, mentions);
  };
  refuse_offsets({2, 6, 6}, {"sequence 0", "2 instead of 0"});
  refuse_offsets({0, 6, 4}, {"sequence 2", "4 instead of 6"});
  refuse_offsets({0, 6, 8}, {"sequence 2", "8 instead of 6"});
  refuse_offsets({kMin, 6, 6}, {"sequence 0"});
  refuse_offsets({0, 6, kMax}, {"sequence 2"});
}

TEST_F(TokenFiles, RefusesHostileDocuments) {
  const auto refuse = [&](std::initializer_list<std::int64_t> documents,
                          std::initializer_list<std::string> mentions) {
    Index index;
    index.documents = bytes_of(documents);
    expect_refused(index, mentions);
  };
  refuse({1, 1, 2, 3}, {"first document bound is 1"});
  refuse({0, 2, 1, 3}, {"document bound 2 is 1", "[2, 3]"});
  refuse({0, 1, 2, 4}, {"document bound 3 is 4"});
  refuse({0, 1, -1, 3}, {"document bound 2 is -1"});
  refuse({0, 1, 2, 2}, {"ends at sequence 2 of 3"});
}

TEST_F(TokenFiles, RefusesEveryTruncation) {
  const std::string index = Index().bytes();
  for (std::size_t size = 0; size < index.size(); ++size) {
    EXPECT_THROW(open(data_, index.substr(0, size)), FormatError) << size;
  }
  for (std::size_t size = 0; size < data_.size(); ++size) {
    EXPECT_THROW(open(data_.substr(0, size), index), FormatError) << size;
  }
  expect_error<FormatError>([&] { open(data_ + "x", index); }, {".bin has 11 bytes", "10"});
}

TEST_F(TokenFiles, NamesAMissingFile) {
  const std::string data = token_data_path(prefix_).string();
  const std::string index = token_index_path(prefix_).string();
  expect_error<FileError>([&] { TokenFile(*files_, prefix_); }, {data, "No such file"});
  write(data, data_);
  expect_error<FileError>([&] { TokenFile(*files_, prefix_); }, {index, "No such file"});
}

TEST_F(TokenFiles, ReadsWithinTheFileOnly) {
  const TokenFile file = open(data_, Index().bytes());
  EXPECT_DEATH(read(file, 3, 3), "out of range");
  EXPECT_DEATH(read(file, -1, 1), "out of range");
  EXPECT_DEATH(read(file, std::numeric_limits<std::int64_t>::max(), 1), "out of range");
}

}  // namespace
}  // namespace cartesian
