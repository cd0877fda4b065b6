#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "runtime/cli/command.h"
#include "runtime/data/tokenize.h"
#include "runtime/job.h"
#include "runtime/train/progress.h"

namespace cartesian {

namespace {

struct Options {
  std::vector<std::string> texts;
  std::string output;
  std::string encoding = "utf8";
  double held_out = 0;
  std::int64_t document_bytes = 16 << 10;
};

/// A live line on a terminal's standard error: share done, speed, time left.
std::function<void(const TokenizeProgress&)> live_line(const Clock& clock) {
  if (isatty(STDERR_FILENO) != 1) {
    return {};
  }
  const Seconds start = clock.now();
  return [&clock, start, next = start](const TokenizeProgress& progress) mutable {
    const Seconds now = clock.now();
    if (now < next && progress.bytes_done < progress.bytes_total) {
      return;
    }
    next = now + Seconds(0.2);
    const double speed =
        static_cast<double>(progress.bytes_done) / std::max(1e-3, (now - start).count());
    const auto left = static_cast<double>(progress.bytes_total - progress.bytes_done);
    fmt::print(stderr, "\rtokenizing {:3.0f}%  {}B/s  eta {}   ",
               100.0 * static_cast<double>(progress.bytes_done) /
                   static_cast<double>(progress.bytes_total),
               format_count(speed), format_duration(left / speed));
    if (progress.bytes_done == progress.bytes_total) {
      fmt::print(stderr, "\n");
    }
    std::fflush(stderr);
  };
}

int tokenize(const Options& options) {
  const auto files = make_posix_file_system();
  const auto tokenizer = make_byte_tokenizer();
  const SteadyClock clock;
  const TokenizeResult result =
      tokenize_texts(*files, *tokenizer,
                     {.texts = {options.texts.begin(), options.texts.end()},
                      .prefix = options.output,
                      .encoding = parse_text_encoding(options.encoding),
                      .held_out = options.held_out,
                      .document_bytes = options.document_bytes,
                      .progress = live_line(clock)});
  fmt::print("{}: {} documents, {} tokens\n", options.output, result.documents, result.tokens);
  if (options.held_out > 0) {
    fmt::print("{}: {} documents, {} tokens\n", held_out_prefix(options.output).string(),
               result.held_out_documents, result.held_out_tokens);
  }
  return kExitOk;
}

}  // namespace

CommandFunction add_tokenize_command(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("tokenize", "Turn texts into tokens that train and eval read");
  command->add_option("texts", options->texts, "Text files")->required();
  command->add_option("-o,--output", options->output, "Prefix of the .bin/.idx pair to write")
      ->required();
  command->add_option("--encoding", options->encoding, "utf8 (checked) or bytes (anything)")
      ->capture_default_str();
  command
      ->add_option("--held-out", options->held_out,
                   "Share of the documents that goes to PREFIX-valid")
      ->check(CLI::Range(0.0, 0.5));
  command
      ->add_option("--document-bytes", options->document_bytes,
                   "Texts are cut into documents of about this size")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->footer(
      "Examples:\n"
      "  cartesian tokenize book.txt notes.txt -o data/tokens/mine --held-out 0.05\n"
      "  cartesian tokenize dump.bin -o data/tokens/raw --encoding bytes");
  return [options] { return tokenize(*options); };
}

}  // namespace cartesian
