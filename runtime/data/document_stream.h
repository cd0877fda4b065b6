#pragma once
// DocumentStream: the documents of texts, in the order in which they are written to token files.

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "runtime/data/tokenize_options.h"

namespace cartesian {

struct TextDocument {
  std::string_view text;
  std::int64_t offset = 0;  ///< of its first byte in its text
  int source = 0;           ///< index of its text
  bool held_out = false;
  std::shared_ptr<const MappedFile> file;  ///< keeps `text` alive

  /// The memory that holds the text may be used for something else; it can still be read.
  void forget() const { file->forget(static_cast<std::size_t>(offset), text.size()); }
};

/// Not thread-safe.
class DocumentStream {
 public:
  virtual ~DocumentStream() = default;
  /// Nothing at the end.
  virtual std::optional<TextDocument> next() = 0;
};

/// Documents as they follow each other in the texts, each once. `files` and `options` must outlive
/// it. Memory: one text is mapped at a time.
std::unique_ptr<DocumentStream> read_in_order(FileSystem& files, const TokenizeOptions& options);

/// read_in_order(), or, if there are corpora, mix_corpora() (document_mixture.h).
std::unique_ptr<DocumentStream> open_documents(FileSystem& files, const TokenizeOptions& options);

}  // namespace cartesian
