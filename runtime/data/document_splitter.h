#pragma once
// DocumentSplitter: cuts a text into documents of a bounded size, at line ends where it can, never
// inside a UTF-8 character.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace cartesian {

class DocumentSplitter {
 public:
  /// A document holds any character, and its length fits the token file's 32 bits.
  static constexpr std::int64_t kMinBytes = 4;
  static constexpr std::int64_t kMaxBytes = std::int64_t{1} << 30;

  struct Document {
    std::string_view text;
    std::size_t offset = 0;  ///< of its first byte in the whole text
  };

  /// `text` must outlive this. REQUIRES: kMinBytes <= document_bytes <= kMaxBytes.
  DocumentSplitter(std::span<const std::byte> text, std::int64_t document_bytes);

  /// The next document, of 1 to `document_bytes` bytes; nothing at the end. Together they are the
  /// whole text.
  std::optional<Document> next();

 private:
  std::string_view text_;
  std::size_t limit_;
  std::size_t at_ = 0;
};

}  // namespace cartesian
