#include <fmt/format.h>

#include <limits>
#include <memory>
#include <optional>
#include <string>

#include "comm/collectives.h"
#include "runtime/cli/command.h"
#include "runtime/cli/loaded_model.h"
#include "runtime/train/evaluation.h"
#include "runtime/train/expert_load.h"

namespace cartesian {

namespace {

struct Options {
  std::string checkpoint;
  std::string data;
  std::int64_t sequence_length = 0;
  std::int64_t sequences = 0;
  LoadOptions load;
};

void print_result(const EvaluationResult& result, Seconds duration) {
  fmt::print("loss {:.6f}\nperplexity {:.4f}\ntokens {}\n", result.loss, result.perplexity(),
             result.tokens);
  if (!result.loads.empty()) {
    fmt::print("balancedness {:.4f}\ndead experts {}\n", mean_balancedness(result.loads),
               dead_experts(result.loads));
  }
  fmt::print("seconds {:.1f}\n", duration.count());
}

int evaluate_checkpoint(const Options& options, Job& job) {
  LoadedModel loaded(job, options.checkpoint, options.load);
  const ModelConfig& config = loaded.rank().model().config();
  std::optional<TokenFile> data;
  std::optional<TokenWindows> windows;
  agree_patiently(job.transport, {"data"}, [&] {
    data.emplace(job.files, options.data);
    data->check_vocabulary(config.vocab_size);
    windows.emplace(*data, options.sequence_length > 0 ? options.sequence_length
                                                       : config.max_position_embeddings);
  });
  const Seconds start = job.clock.now();
  const std::int64_t count =
      options.sequences > 0 ? options.sequences : std::numeric_limits<std::int64_t>::max();
  return run_alive(job, [&] {
    const EvaluationResult result = evaluate(loaded.rank(), *windows, count);
    if (job.is_root()) {
      print_result(result, job.clock.now() - start);
    }
    return kExitOk;
  });
}

}  // namespace

CommandFunction add_eval_command(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("eval", "Loss and perplexity of a checkpoint on tokenized text");
  command->add_option("checkpoint", options->checkpoint, "Checkpoint directory")->required();
  command->add_option("--data", options->data, "Prefix of a .bin/.idx pair")->required();
  command
      ->add_option("--seq-length", options->sequence_length,
                   "Tokens per window; the checkpoint's unless given")
      ->check(CLI::PositiveNumber);
  command
      ->add_option("--sequences", options->sequences,
                   "Windows, spread evenly over the data; all unless given")
      ->check(CLI::PositiveNumber);
  add_load_options(*command, options->load);
  command->footer(
      "Examples:\n"
      "  cartesian eval runs/quickstart/checkpoints/step-00001000 --data "
      "data/tokens/corpora-valid\n"
      "  mpirun -np 2 cartesian eval CHECKPOINT --data PREFIX --sequences 200");
  return
      [options] { return run_job([&](Job& job) { return evaluate_checkpoint(*options, job); }); };
}

}  // namespace cartesian
