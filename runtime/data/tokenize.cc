#include "runtime/data/tokenize.h"

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <exception>
#include <optional>
#include <span>
#include <string>

#include "base/error.h"
#include "runtime/data/document_stream.h"
#include "runtime/data/sources_writer.h"
#include "runtime/data/staged_files.h"
#include "runtime/data/token_file.h"
#include "runtime/data/token_file_writer.h"

namespace cartesian {

namespace {

// Of text that is read before it is written, for each thread: so that all have work to share.
constexpr std::int64_t kBatchBytes = std::int64_t{1} << 20;

/// One of PREFIX and PREFIX-valid.
class Output {
 public:
  Output(StagedFiles& staged, const Path& prefix, const Tokenizer& tokenizer,
         std::span<const Path> texts)
      : tokens_(staged, prefix, tokenizer.vocabulary()), sources_(staged, prefix, texts) {
    write(staged, tokenizer_path(prefix), tokenizer.to_json());
    if (!tokenizer.model_file().empty()) {
      write(staged, tokenizer_model_path(prefix), tokenizer.model_file());
    }
  }

  void add_document(std::span<const std::int32_t> ids, int source) {
    tokens_.append(ids);
    tokens_.end_document();
    sources_.add_document(source);
  }
  void finish() {
    sources_.finish();
    tokens_.finish();
  }
  std::int64_t documents() const { return tokens_.documents(); }
  std::int64_t tokens() const { return tokens_.tokens(); }

 private:
  static void write(StagedFiles& staged, const Path& path, std::string_view contents) {
    const auto file = staged.create(path);
    file->append(contents);
    file->sync();
    file->close();
  }

  TokenFileWriter tokens_;
  SourcesWriter sources_;
};

/// PREFIX and, if documents are held out, PREFIX-valid.
class Outputs {
 public:
  Outputs(StagedFiles& staged, const Tokenizer& tokenizer, const TokenizeOptions& options)
      : held_out_(options.held_out), train_(staged, options.prefix, tokenizer, options.texts) {
    if (held_out_ > 0.0) {
      valid_.emplace(staged, held_out_prefix(options.prefix), tokenizer, options.texts);
    }
  }

  void add_document(std::span<const std::int32_t> ids, const TextDocument& document) {
    (document.held_out ? *valid_ : train_).add_document(ids, document.source);
  }

  void finish() {
    const auto [documents, tokens, held_out, held_out_tokens] = result();
    if (valid_ && (documents == 0 || held_out == 0)) {
      throw ConfigError(fmt::format(
          "--held-out = {} of {} documents leaves {} to train on and {} held out; smaller "
          "documents (--document-bytes) or another share are needed",
          held_out_, documents + held_out, documents, held_out));
    }
    train_.finish();
    if (valid_) {
      valid_->finish();
    }
  }

  TokenizeResult result() const {
    TokenizeResult result{.documents = train_.documents(), .tokens = train_.tokens()};
    if (valid_) {
      result.held_out_documents = valid_->documents();
      result.held_out_tokens = valid_->tokens();
    }
    return result;
  }

 private:
  double held_out_;
  Output train_;
  std::optional<Output> valid_;
};

/// Documents that are encoded together, by all threads.
class Batch {
 public:
  Batch(const Tokenizer& tokenizer, const TokenizeOptions& options)
      : options_(options), end_of_document_(tokenizer.end_of_document()) {
    for (int thread = 0; thread < options.threads; ++thread) {
      encoders_.push_back(tokenizer.make_encoder());
    }
  }

  /// False if there are no more documents.
  bool read(DocumentStream& documents) {
    documents_.clear();
    for (std::int64_t bytes = 0; bytes < kBatchBytes * options_.threads;) {
      auto document = documents.next();
      if (!document) {
        break;
      }
      bytes += static_cast<std::int64_t>(document->text.size());
      documents_.push_back(std::move(*document));
    }
    return !documents_.empty();
  }

  void encode() {
    ids_.resize(std::max(ids_.size(), documents_.size()));
    errors_.assign(documents_.size(), {});
#pragma omp parallel for num_threads(options_.threads) schedule(dynamic)
    for (std::size_t i = 0; i < documents_.size(); ++i) {
      try {
        encode(documents_[i], *encoders_[static_cast<std::size_t>(omp_get_thread_num())], ids_[i]);
      } catch (...) {
        errors_[i] = std::current_exception();
      }
    }
    for (const std::exception_ptr& error : errors_) {
      if (error) {
        std::rethrow_exception(error);
      }
    }
  }

  std::span<const TextDocument> documents() const { return documents_; }
  std::span<const std::int32_t> ids(std::size_t document) const { return ids_[document]; }

 private:
  void encode(const TextDocument& document, TextEncoder& encoder,
              std::vector<std::int32_t>& ids) const {
    check_encoding(options_.encoding, document.text, document.offset,
                   options_.texts[static_cast<std::size_t>(document.source)]);
    ids.clear();
    encoder.encode(document.text, ids);
    ids.push_back(end_of_document_);
  }

  const TokenizeOptions& options_;
  std::int32_t end_of_document_;
  std::vector<std::unique_ptr<TextEncoder>> encoders_;  // [threads]
  std::vector<TextDocument> documents_;
  std::vector<std::vector<std::int32_t>> ids_;  // of each document, and unused ones
  std::vector<std::exception_ptr> errors_;
};

void remove_model(FileSystem& files, const Path& prefix) {
  if (files.exists(tokenizer_model_path(prefix))) {
    files.remove_all(tokenizer_model_path(prefix));
  }
}

}  // namespace

TokenizeResult tokenize_texts(FileSystem& files, const Tokenizer& tokenizer,
                              const TokenizeOptions& options) {
  TokenizeProgress progress{.bytes_total = check_tokenize_options(files, options)};
  if (options.prefix.has_parent_path()) {
    files.create_directories(options.prefix.parent_path());
  }
  StagedFiles staged(files);
  Outputs outputs(staged, tokenizer, options);
  const auto documents = open_documents(files, options);
  for (Batch batch(tokenizer, options); batch.read(*documents);) {
    batch.encode();
    for (std::size_t i = 0; i < batch.documents().size(); ++i) {
      const TextDocument& document = batch.documents()[i];
      outputs.add_document(batch.ids(i), document);
      document.forget();
      progress.bytes_done += static_cast<std::int64_t>(document.text.size());
      // A mixture may end with a part of a document more.
      progress.bytes_total = std::max(progress.bytes_total, progress.bytes_done);
      if (options.progress) {
        options.progress(progress);
      }
    }
  }
  outputs.finish();
  staged.publish();
  if (tokenizer.model_file().empty()) {  // one of another tokenizer would mislead
    remove_model(files, options.prefix);
    if (options.held_out > 0.0) {
      remove_model(files, held_out_prefix(options.prefix));
    }
  }
  return outputs.result();
}

}  // namespace cartesian
