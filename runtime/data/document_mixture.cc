#include "runtime/data/document_mixture.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "base/random.h"

namespace cartesian {

namespace {

class Mixture final : public DocumentStream {
 public:
  Mixture(FileSystem& files, const TokenizeOptions& options) : seed_(options.seed) {
    std::vector<std::size_t> corpus_of;  // by text
    for (const Corpus& corpus : options.corpora) {
      corpus_of.resize(corpus_of.size() + corpus.texts, corpora_.size());
      corpora_.push_back({.weight = corpus.weight, .documents = {}});
    }
    const auto documents = read_in_order(files, options);
    while (const auto document = documents->next()) {
      texts_.resize(static_cast<std::size_t>(document->source) + 1, document->file);
      const Entry entry{.offset = document->offset,
                        .size = static_cast<std::int32_t>(document->text.size()),
                        .source = document->source};
      if (document->held_out) {
        held_out_.push_back(entry);
      } else {
        corpora_[corpus_of[static_cast<std::size_t>(document->source)]].documents.push_back(entry);
        bytes_left_ += entry.size;
      }
      document->forget();
    }
    for (std::size_t c = 0; c < corpora_.size(); ++c) {
      if (corpora_[c].documents.empty()) {
        throw ConfigError(
            fmt::format("--corpus number {} has no documents but held-out ones; smaller documents "
                        "(--document-bytes) or another --held-out are needed",
                        c + 1));
      }
    }
  }

  std::optional<TextDocument> next() override {
    if (next_held_out_ < held_out_.size()) {
      return document(held_out_[next_held_out_++], true);
    }
    if (bytes_left_ <= 0) {
      return std::nullopt;
    }
    const auto behind = std::ranges::min_element(corpora_, {}, [](const Mixed& corpus) {
      return static_cast<double>(corpus.bytes_given) / corpus.weight;
    });
    const Entry& entry = behind->documents[next_of(*behind)];
    behind->bytes_given += entry.size;
    bytes_left_ -= entry.size;
    return document(entry, false);
  }

 private:
  struct Entry {
    std::int64_t offset;
    std::int32_t size;
    std::int32_t source;
  };
  struct Mixed {
    double weight;
    std::vector<Entry> documents;
    std::uint64_t given = 0;  // documents
    std::int64_t bytes_given = 0;
    std::uint64_t key = 0;  // of this reading's order
  };

  std::size_t next_of(Mixed& corpus) const {
    const std::uint64_t size = corpus.documents.size();
    const std::uint64_t index = corpus.given % size;
    if (index == 0) {
      corpus.key = random_key(
          seed_, fmt::format("corpus{} reading{}", &corpus - corpora_.data(), corpus.given / size));
    }
    ++corpus.given;
    return random_permute(corpus.key, index, size);
  }

  TextDocument document(const Entry& entry, bool held_out) const {
    const auto& file = texts_[static_cast<std::size_t>(entry.source)];
    const auto bytes = file->bytes().subspan(static_cast<std::size_t>(entry.offset),
                                             static_cast<std::size_t>(entry.size));
    return {.text = {reinterpret_cast<const char*>(bytes.data()), bytes.size()},
            .offset = entry.offset,
            .source = entry.source,
            .held_out = held_out,
            .file = file};
  }

  std::uint64_t seed_;
  std::vector<std::shared_ptr<const MappedFile>> texts_;
  std::vector<Mixed> corpora_;
  std::vector<Entry> held_out_;
  std::size_t next_held_out_ = 0;
  std::int64_t bytes_left_ = 0;
};

}  // namespace

std::unique_ptr<DocumentStream> mix_corpora(FileSystem& files, const TokenizeOptions& options) {
  return std::make_unique<Mixture>(files, options);
}

}  // namespace cartesian
