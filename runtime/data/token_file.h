#pragma once
// Token files: Megatron's IndexedDataset, a pair PREFIX.bin (the tokens) and PREFIX.idx (what they
// are), memory-mapped. All integers are little-endian. PREFIX.idx:
//
//   "MMIDIDX\0\0"  u64 version = 1   u8 type of a token   u64 sequences S   u64 document bounds D
//   i32 length of each sequence [S]  i64 byte offset of each sequence in PREFIX.bin [S]
//   i64 document bounds [D]: document i is sequences [bounds[i], bounds[i + 1])
//
// Here the sequences must follow each other in PREFIX.bin without gaps, as Megatron writes them, so
// that the file is one stream of tokens.

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/file_system.h"

namespace cartesian {

/// How a token is stored, by Megatron's codes.
enum class TokenType : std::uint8_t { u8 = 1, i16 = 3, i32 = 4, i64 = 5, u16 = 8 };

/// Bytes of one token.
std::size_t size_of(TokenType type);

/// PREFIX.bin and PREFIX.idx.
Path token_data_path(const Path& prefix);
Path token_index_path(const Path& prefix);

/// A validated pair. Thread-safe.
class TokenFile {
 public:
  /// Throws FileError if a file is missing, FormatError, naming file and field, if anything in the
  /// index contradicts itself or the data's size. Reads the whole index, nothing of the data.
  TokenFile(FileSystem& files, Path prefix);

  const Path& prefix() const { return prefix_; }
  TokenType type() const { return type_; }
  std::int64_t tokens() const { return tokens_; }
  std::int64_t sequences() const { return sequences_; }
  std::int64_t documents() const { return bounds_ - 1; }
  /// Of PREFIX.idx: tells one token file from another.
  std::uint64_t index_hash() const;
  /// Of each document: the number of tokens up to its end.
  std::vector<std::int64_t> document_ends() const;
  /// For each of the tokens [offset, offset + out.size()) where its document begins, as an index
  /// among them: 0 if it began before. REQUIRES: they exist.
  void document_starts(std::int64_t offset, std::span<std::int32_t> out) const;

  /// Tokens [offset, offset + out.size()) of all documents in order. Throws FormatError if a token
  /// does not fit an int32. REQUIRES: they exist.
  void read(std::int64_t offset, std::span<std::int32_t> out) const;
  /// Reads all tokens; throws FormatError, naming the file and the position, at the first that is
  /// not within [0, vocabulary).
  void check_vocabulary(std::int64_t vocabulary) const;

 private:
  void read_header();
  void check_sequences() const;
  void check_documents() const;
  /// The number of tokens before document number `document`; documents() gives them all.
  std::int64_t document_begin(std::int64_t document) const;
  [[noreturn]] void fail_index(std::string_view what) const;

  Path prefix_;
  std::unique_ptr<MappedFile> data_;
  std::unique_ptr<MappedFile> index_;
  TokenType type_ = TokenType::u16;
  std::int64_t sequences_ = 0;
  std::int64_t bounds_ = 0;
  std::int64_t tokens_ = 0;
};

}  // namespace cartesian
