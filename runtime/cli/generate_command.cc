#include <fmt/format.h>

#include <cstdio>
#include <memory>
#include <string>

#include "base/error.h"
#include "comm/collectives.h"
#include "runtime/cli/command.h"
#include "runtime/cli/loaded_model.h"
#include "runtime/data/text_decoder.h"
#include "runtime/train/generate.h"

namespace cartesian {

namespace {

struct Options {
  std::string checkpoint;
  std::string prompt;
  GenerateOptions generate;
  LoadOptions load;
};

std::unique_ptr<Tokenizer> tokenizer_of(Job& job, const Path& checkpoint, std::int64_t vocab_size) {
  const Path path = checkpoint / kTokenizerFile;
  if (!job.files.exists(path)) {
    throw FileError(fmt::format("{}: the checkpoint has no tokenizer, so a prompt cannot be read",
                                path.string()));
  }
  auto tokenizer = load_tokenizer(job.files, path);
  if (tokenizer->vocabulary() > vocab_size) {
    throw FormatError(fmt::format("{}: a vocabulary of {} where the model has {}", path.string(),
                                  tokenizer->vocabulary(), vocab_size));
  }
  return tokenizer;
}

int generate_text(const Options& options, Job& job) {
  LoadedModel loaded(job, options.checkpoint, options.load);
  std::unique_ptr<Tokenizer> tokenizer;
  agree(job.transport, {"tokenizer"}, [&] {
    tokenizer = tokenizer_of(job, options.checkpoint, loaded.rank().model().config().vocab_size);
  });
  std::vector<std::int32_t> prompt = {
      tokenizer->end_of_document()};  // a document begins after the end of another
  tokenizer->encode(options.prompt, prompt);
  TextDecoder decoder(*tokenizer);
  const auto print = [&](const std::string& text) {
    if (job.is_root()) {
      std::fwrite(text.data(), 1, text.size(), stdout);
      std::fflush(stdout);
    }
  };
  for (const std::int32_t id : prompt) {
    print(decoder.add(id));
  }
  return run_alive(job, [&] {
    generate(loaded.rank(), prompt, tokenizer->end_of_document(), options.generate,
             [&](std::int32_t id) { print(decoder.add(id)); });
    print(decoder.finish() + "\n");
    return kExitOk;
  });
}

}  // namespace

CommandFunction add_generate_command(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("generate", "Let a checkpoint continue a text");
  command->add_option("checkpoint", options->checkpoint, "Checkpoint directory")->required();
  command->add_option("--prompt", options->prompt, "Text to continue");
  command->add_option("--tokens", options->generate.tokens, "Tokens to generate at most")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command
      ->add_option("--temperature", options->generate.temperature,
                   "0 takes the most probable token")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      ->add_option("--top-k", options->generate.top_k,
                   "Choose among the k most probable tokens; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--seed", options->generate.seed, "Of the choices")->capture_default_str();
  add_load_options(*command, options->load);
  command->footer(
      "Examples:\n"
      "  cartesian generate runs/quickstart/checkpoints/step-00001000 --prompt 'In the beginning'\n"
      "  cartesian generate CHECKPOINT --prompt 'It is a truth' --temperature 0.8 --top-k 40 "
      "--tokens 300");
  return [options] { return run_job([&](Job& job) { return generate_text(*options, job); }); };
}

}  // namespace cartesian
