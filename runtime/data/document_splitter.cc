#include "runtime/data/document_splitter.h"

#include "base/check.h"
#include "runtime/data/utf8.h"

namespace cartesian {

DocumentSplitter::DocumentSplitter(std::span<const std::byte> text, std::int64_t document_bytes)
    : text_(reinterpret_cast<const char*>(text.data()), text.size()),
      limit_(static_cast<std::size_t>(document_bytes)) {
  check(document_bytes >= kMinBytes && document_bytes <= kMaxBytes, "document size out of range");
}

std::optional<DocumentSplitter::Document> DocumentSplitter::next() {
  const std::string_view rest = text_.substr(at_);
  if (rest.empty()) {
    return std::nullopt;
  }
  std::size_t size = rest.size();
  if (size > limit_) {
    const std::size_t line_end = rest.substr(0, limit_).rfind('\n');
    if (line_end != std::string_view::npos) {
      size = line_end + 1;
    } else {
      size = limit_;
      // A character has at most three bytes after its first; more are not UTF-8 anyway.
      for (int back = 0; back < 3 && is_utf8_continuation(rest[size]); ++back) {
        --size;
      }
    }
  }
  const Document document{rest.substr(0, size), at_};
  at_ += size;
  return document;
}

}  // namespace cartesian
