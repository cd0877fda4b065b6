#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <condition_variable>
#include <cstdio>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/json.h"
#include "runtime/cli/command.h"
#include "runtime/data/sentencepiece.h"
#include "runtime/data/tokenize.h"
#include "runtime/data/tokenizer_training.h"
#include "runtime/job.h"
#include "runtime/thread_count.h"
#include "runtime/train/progress.h"

namespace cartesian {

namespace {

struct Options {
  std::vector<std::string> texts;
  std::vector<std::vector<std::string>> corpora;  ///< each a weight, then texts
  bool train = false;
  TokenizerTraining training;
  TokenizeOptions tokenize;
  std::string encoding = "utf8";
};

/// Standard error says how far the work is: a live line on a terminal, else a line now and then.
class ProgressLine {
 public:
  explicit ProgressLine(const Clock& clock)
      : clock_(clock), live_(isatty(STDERR_FILENO) == 1), start_(clock.now()) {
    next_ = start_ + interval();
  }

  void show(const TokenizeProgress& progress) {
    const Seconds now = clock_.now();
    const bool last = live_ && progress.bytes_done == progress.bytes_total;
    if (now < next_ && !last) {
      return;
    }
    next_ = now + interval();
    const auto done = static_cast<double>(progress.bytes_done);
    const auto total = static_cast<double>(progress.bytes_total);
    const double speed = done / std::max(1e-3, (now - start_).count());
    fmt::print(stderr, "{}tokenizing {:3.0f}%  {}B/s  eta {}{}", live_ ? "\r" : "",
               100.0 * done / total, format_count(speed), format_duration((total - done) / speed),
               live_ ? "   " : "\n");
    if (last) {
      fmt::print(stderr, "\n");
    }
    std::fflush(stderr);
  }

 private:
  Seconds interval() const { return live_ ? Seconds(0.2) : Seconds(5); }

  const Clock& clock_;
  bool live_;
  Seconds start_;
  Seconds next_{};
};

/// Says every so often how long training has taken: it cannot tell how far it is.
class TrainingLine {
 public:
  TrainingLine(const Clock& clock, std::int64_t vocabulary)
      : clock_(clock),
        live_(isatty(STDERR_FILENO) == 1),
        vocabulary_(vocabulary),
        start_(clock.now()),
        ticker_([this](const std::stop_token& stop) { run(stop); }) {}

 private:
  void run(const std::stop_token& stop) {
    std::mutex mutex;
    std::unique_lock lock(mutex);
    std::condition_variable_any ended;
    do {
      fmt::print(stderr, "{}training a vocabulary of {}  {}{}", live_ ? "\r" : "", vocabulary_,
                 format_duration((clock_.now() - start_).count()), live_ ? "   " : "\n");
      std::fflush(stderr);
      ended.wait_for(lock, stop, live_ ? Seconds(1) : Seconds(30), [] { return false; });
    } while (!stop.stop_requested());
    fmt::print(stderr, "{}", live_ ? "\n" : "");
  }

  const Clock& clock_;
  bool live_;
  std::int64_t vocabulary_;
  Seconds start_;
  std::jthread ticker_;  // last: it uses the others
};

/// --corpus WEIGHT TEXT...
void add_corpus(const std::vector<std::string>& words, TokenizeOptions& options) {
  const std::string& text = words.front();
  Corpus corpus{.texts = words.size() - 1};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), corpus.weight);
  if (error != std::errc() || end != text.data() + text.size()) {
    throw ConfigError(
        fmt::format("--corpus {}: a weight must come first, then texts", quote(text)));
  }
  if (corpus.texts == 0) {
    throw ConfigError(fmt::format("--corpus {}: texts must follow the weight", text));
  }
  options.corpora.push_back(corpus);
  options.texts.insert(options.texts.end(), words.begin() + 1, words.end());
}

std::unique_ptr<Tokenizer> make_tokenizer(FileSystem& files, const Options& options,
                                          const Clock& clock) {
  if (const Path& model = options.tokenize.model; !model.empty()) {
    return make_sentencepiece_tokenizer(files.read(model), model.string());
  }
  if (!options.train) {
    return make_byte_tokenizer();
  }
  check_tokenize_options(files, options.tokenize);  // before there is a line on the screen
  const TrainingLine line(clock, options.training.vocabulary);
  return train_tokenizer(files, options.tokenize, options.training);
}

int tokenize(Options options) {
  const auto files = make_posix_file_system();
  const SteadyClock clock;
  options.tokenize.encoding = parse_text_encoding(options.encoding);
  if (options.tokenize.encoding == TextEncoding::bytes &&
      (options.train || !options.tokenize.model.empty())) {
    throw ConfigError("--encoding bytes: SentencePiece reads UTF-8 only");
  }
  options.tokenize.texts.assign(options.texts.begin(), options.texts.end());
  for (const std::vector<std::string>& corpus : options.corpora) {
    add_corpus(corpus, options.tokenize);
  }
  const auto tokenizer = make_tokenizer(*files, options, clock);
  ProgressLine line(clock);
  options.tokenize.progress = [&](const TokenizeProgress& progress) { line.show(progress); };
  const TokenizeResult result = tokenize_texts(*files, *tokenizer, options.tokenize);
  const Path& prefix = options.tokenize.prefix;
  fmt::print("{}: {} documents, {} tokens of a vocabulary of {}\n", prefix.string(),
             result.documents, result.tokens, tokenizer->vocabulary());
  if (options.tokenize.held_out > 0) {
    fmt::print("{}: {} documents, {} tokens\n", held_out_prefix(prefix).string(),
               result.held_out_documents, result.held_out_tokens);
  }
  return kExitOk;
}

void add_text_options(CLI::App& command, Options& options) {
  CLI::Option_group* texts = command.add_option_group("Texts");
  texts->require_option(1);
  texts->add_option("texts", options.texts, "Text files, one after the other");
  texts
      ->add_option(
          "--corpus", options.corpora,
          "Instead: a weight and text files, once for each corpus. Corpora are mixed so that "
          "each has the share weight / (sum of weights) of the bytes of text: of as many as "
          "all have together (without what is held out), and all the way through. A corpus is "
          "read again, in another order, if that is more than it has, and in part if it is less")
      ->expected(-1)
      ->type_name("WEIGHT TEXT...");
  command
      .add_option("-o,--output", options.tokenize.prefix, "Prefix of the .bin/.idx pair to write")
      ->required();
  command.add_option("--encoding", options.encoding, "utf8 (checked) or bytes (anything)")
      ->capture_default_str();
  command
      .add_option("--held-out", options.tokenize.held_out,
                  "Share of the documents that goes to PREFIX-valid")
      ->check(CLI::Range(0.0, 0.5));
  command
      .add_option("--document-bytes", options.tokenize.document_bytes,
                  "Texts are cut into documents of at most this size, at a line end where there is "
                  "one; a longer line is cut between two characters")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command
      .add_option("--seed", options.tokenize.seed,
                  "Of the order in which corpora are mixed, and of the sample of --train-bytes")
      ->capture_default_str();
  command
      .add_option("--threads", options.tokenize.threads,
                  "OMP_NUM_THREADS, or all processors, unless given; the result is the same")
      ->check(CLI::Range(1, 1024));
}

void add_tokenizer_options(CLI::App& command, Options& options) {
  CLI::Option* model =
      command.add_option("--model", options.tokenize.model,
                         "SentencePiece model to tokenize with; bytes are tokens if there is none");
  CLI::Option* vocabulary =
      command
          .add_option("--vocabulary", options.training.vocabulary,
                      "Train a SentencePiece model of this size on the texts; it is written to "
                      "PREFIX.tokenizer.model, too")
          ->check(CLI::Range(2, 1 << 24))
          ->excludes(model);
  vocabulary->each([&options](const std::string&) { options.train = true; });
  command.add_option("--model-type", options.training.model_type, "Of the model that is trained")
      ->check(CLI::IsMember({"bpe", "unigram"}))
      ->needs(vocabulary)
      ->capture_default_str();
  command
      .add_option("--train-bytes", options.training.bytes,
                  "Train it on a random sample of so many bytes at most; bounds memory")
      ->check(CLI::PositiveNumber)
      ->needs(vocabulary)
      ->capture_default_str();
}

}  // namespace

CommandFunction add_tokenize_command(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  options->tokenize.threads = threads_of_process();
  CLI::App* command =
      app.add_subcommand("tokenize", "Turn texts into tokens that train and eval read");
  add_text_options(*command, *options);
  add_tokenizer_options(*command, *options);
  command->footer(
      "Examples:\n"
      "  cartesian tokenize book.txt notes.txt -o data/tokens/mine --held-out 0.05\n"
      "  cartesian tokenize wiki.txt -o data/tokens/wiki --vocabulary 32000 --held-out 0.01\n"
      "  cartesian tokenize new.txt -o data/tokens/new --model data/tokens/wiki.tokenizer.model\n"
      "  cartesian tokenize --corpus 0.7 wiki/*.txt --corpus 0.3 books/*.txt -o data/tokens/mixed "
      "\\\n"
      "    --model tokenizer.model\n"
      "  cartesian tokenize dump.bin -o data/tokens/raw --encoding bytes");
  return [options] { return tokenize(*options); };
}

}  // namespace cartesian
