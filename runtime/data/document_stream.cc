#include "runtime/data/document_stream.h"

#include <cmath>

#include "runtime/data/document_mixture.h"
#include "runtime/data/document_splitter.h"

namespace cartesian {

namespace {

/// Whether document `index`, counted over all texts, is held out: every 1/share-th is, so that of
/// n documents the nearest integer to n * share is.
bool is_held_out(std::int64_t index, double share) {
  const auto count_before = [&](std::int64_t documents) {
    return std::floor(static_cast<double>(documents) * share + 0.5);
  };
  return count_before(index + 1) > count_before(index);
}

class InOrder final : public DocumentStream {
 public:
  InOrder(FileSystem& files, const TokenizeOptions& options) : files_(files), options_(options) {}

  std::optional<TextDocument> next() override {
    while (true) {
      if (splitter_) {
        if (const auto document = splitter_->next()) {
          return TextDocument{.text = document->text,
                              .offset = static_cast<std::int64_t>(document->offset),
                              .source = static_cast<int>(source_ - 1),
                              .held_out = is_held_out(documents_++, options_.held_out),
                              .file = file_};
        }
      }
      if (source_ == options_.texts.size()) {
        return std::nullopt;
      }
      file_ = files_.map(options_.texts[source_++]);
      splitter_.emplace(file_->bytes(), options_.document_bytes);
    }
  }

 private:
  FileSystem& files_;
  const TokenizeOptions& options_;
  std::size_t source_ = 0;  // texts that have been opened
  std::shared_ptr<const MappedFile> file_;
  std::optional<DocumentSplitter> splitter_;
  std::int64_t documents_ = 0;
};

}  // namespace

std::unique_ptr<DocumentStream> read_in_order(FileSystem& files, const TokenizeOptions& options) {
  return std::make_unique<InOrder>(files, options);
}

std::unique_ptr<DocumentStream> open_documents(FileSystem& files, const TokenizeOptions& options) {
  return options.corpora.empty() ? read_in_order(files, options) : mix_corpora(files, options);
}

}  // namespace cartesian
