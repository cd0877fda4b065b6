#include "runtime/data/token_file_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "runtime/data/token_file_layout.h"

namespace cartesian {

namespace layout = token_file_layout;

namespace {

// DType.optimal_dtype of Megatron-LM's indexed_dataset.py.
TokenType type_for(std::int64_t vocabulary) {
  return vocabulary < 65500 ? TokenType::u16 : TokenType::i32;
}

/// Appends piece by piece what would be large as a whole.
class IndexOutput {
 public:
  explicit IndexOutput(OutputFile& file) : file_(file) {}

  template <class T>
  void put(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(T));
    constexpr std::size_t kPiece = std::size_t{1} << 16;
    if (bytes_.size() >= kPiece) {
      flush();
    }
  }
  void flush() {
    file_.append(bytes_);
    bytes_.clear();
  }

 private:
  OutputFile& file_;
  std::string bytes_;
};

}  // namespace

TokenFileWriter::TokenFileWriter(StagedFiles& staged, Path prefix, std::int64_t vocabulary)
    : staged_(staged),
      prefix_(std::move(prefix)),
      vocabulary_(vocabulary),
      type_(type_for(vocabulary)),
      data_(staged.create(token_data_path(prefix_))) {}

void TokenFileWriter::append(std::span<const std::int32_t> tokens) {
  check(std::all_of(tokens.begin(), tokens.end(),
                    [&](std::int32_t token) { return token >= 0 && token < vocabulary_; }),
        "tokens are within the vocabulary");
  if (type_ == TokenType::u16) {
    narrow_.assign(tokens.begin(), tokens.end());
    data_->append(std::as_bytes(std::span(narrow_)));
  } else {
    data_->append(std::as_bytes(tokens));
  }
  open_ += static_cast<std::int64_t>(tokens.size());
}

void TokenFileWriter::end_document() {
  if (!std::in_range<std::int32_t>(open_)) {
    throw FormatError(fmt::format("{}: document {} of {} tokens is longer than the format allows",
                                  token_data_path(prefix_).string(), documents(), open_));
  }
  lengths_.push_back(static_cast<std::int32_t>(open_));
  tokens_ += open_;
  open_ = 0;
}

void TokenFileWriter::finish() {
  check(open_ == 0, "every document is ended");
  data_->sync();
  data_->close();

  const auto file = staged_.create(token_index_path(prefix_));
  IndexOutput index(*file);
  for (const char c : layout::kMagic) {
    index.put(c);
  }
  index.put(layout::kVersion);
  index.put(type_);
  index.put(static_cast<std::uint64_t>(lengths_.size()));
  index.put(static_cast<std::uint64_t>(lengths_.size() + 1));
  for (const std::int32_t length : lengths_) {
    index.put(length);
  }
  std::int64_t offset = 0;
  for (const std::int32_t length : lengths_) {
    index.put(offset);
    offset += length * static_cast<std::int64_t>(size_of(type_));
  }
  for (std::int64_t bound = 0; bound <= documents(); ++bound) {
    index.put(bound);
  }
  index.flush();
  file->sync();
  file->close();
}

}  // namespace cartesian
