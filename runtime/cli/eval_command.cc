#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <optional>
#include <string>

#include "base/error.h"
#include "base/hash.h"
#include "comm/collectives.h"
#include "runtime/cli/command.h"
#include "runtime/cli/loaded_model.h"
#include "runtime/data/tokenizer.h"
#include "runtime/train/evaluation.h"
#include "runtime/train/expert_load.h"
#include "runtime/train/trace_recorder.h"

namespace cartesian {

namespace {

struct Options {
  std::string checkpoint;
  std::string data;
  std::int64_t sequence_length = 0;
  std::int64_t sequences = 0;
  RouterMask mask;
  bool loads = false;
  std::string trace;
  LoadOptions load;
};

/// What is evaluated. Not to be moved: windows and sources refer to the tokens.
struct EvaluationData {
  std::optional<TokenFile> tokens;
  std::optional<TokenWindows> windows;
  std::optional<DocumentSources> sources;  ///< if there are several
  std::int64_t count = 0;                  ///< windows
};

void open_data(Job& job, const Options& options, const ModelConfig& model, EvaluationData& data) {
  agree_patiently(job.transport, {"data"}, [&] {
    data.tokens.emplace(job.files, options.data);
    data.tokens->check_vocabulary(model.vocab_size);
    const bool given = options.sequence_length > 0;
    data.windows.emplace(*data.tokens,
                         given ? options.sequence_length : model.max_position_embeddings,
                         given ? "--seq-length" : "the checkpoint's max_position_embeddings");
    check_same_tokenizer(job.files, Path(options.checkpoint) / kTokenizerFile,
                         tokenizer_path(options.data));
    if (DocumentSources::exist(job.files, *data.tokens)) {
      data.sources.emplace(job.files, *data.tokens);
    }
  });
  const std::string sources =
      data.sources ? fmt::format("{}", fmt::join(data.sources->names(), "\n")) : "none";
  check_same_contents(job.transport, fmt::format("--data {}", options.data),
                      hash_hex(data.tokens->index_hash()) + sources);
  data.count = options.sequences > 0 ? std::min(options.sequences, data.windows->count())
                                     : data.windows->count();
}

void check_mask(const RouterMask& mask, const ModelConfig& model) {
  if (mask.experts == 0) {
    return;
  }
  const std::int64_t needed = model.routing_kind() == RoutingKind::top_p ? 1 : model.moe_top_k;
  if (model.sub_layers == 0) {
    throw ConfigError("--disable-top needs a model with experts; this one is dense");
  }
  if (mask.experts > model.num_experts - needed) {
    throw ConfigError(fmt::format("--disable-top {} leaves fewer than {} of {} experts to choose",
                                  mask.experts, needed, model.num_experts));
  }
  if (mask.first_layer >= model.moe_layers()) {
    throw ConfigError(
        fmt::format("--disable-from {}: the model has {} MoE layers, so nothing would be disabled",
                    mask.first_layer, model.moe_layers()));
  }
}

void print_sources(const EvaluationResult& result, const std::vector<std::string>& names) {
  fmt::print("by source\n");
  for (std::size_t i = 0; i < names.size(); ++i) {
    const SourceLoss& source = result.sources[i];
    if (source.tokens > 0) {
      fmt::print("  {:<32} loss {:.4f}  perplexity {:8.3f}  tokens {}\n", names[i], source.loss,
                 std::exp(source.loss), source.tokens);
    }
  }
}

/// One line for each sub-layer; with `experts`, each expert's share of the choices, too.
void print_loads(const EvaluationResult& result, const ModelConfig& model, bool experts) {
  fmt::print("by sub-layer\n");
  for (std::size_t i = 0; i < result.loads.size(); ++i) {
    const RouterLoad& load = result.loads[i];
    const auto groups = static_cast<std::size_t>(model.sub_layers);
    const double choices = std::accumulate(load.counts.begin(), load.counts.end(), 0.0);
    fmt::print("  block {:<3} {}  balancedness {:.3f}  dead {}  choices per token {:.2f}\n",
               static_cast<std::int64_t>(i / groups) * model.expert_interval,
               i % groups == 0 ? "A" : "B", balancedness(load), dead_experts({&load, 1}),
               choices / static_cast<double>(result.tokens));
    for (std::size_t e = 0; experts && e < load.counts.size(); ++e) {
      fmt::print("    expert {:<4} {:.4f}\n", e, choices > 0 ? load.counts[e] / choices : 0);
    }
  }
}

void print_result(const EvaluationResult& result, const EvaluationData& data,
                  const ModelConfig& model, const Options& options) {
  fmt::print("loss {:.6f}\nperplexity {:.4f}\ntokens {}\n", result.loss, result.perplexity(),
             result.tokens);
  if (!result.loads.empty()) {
    fmt::print("balancedness {:.4f}\ndead experts {}\n", mean_balancedness(result.loads),
               dead_experts(result.loads));
  }
  if (data.sources && data.sources->names().size() > 1) {
    print_sources(result, data.sources->names());
  }
  if (!result.loads.empty()) {
    print_loads(result, model, options.loads);
  }
}

void write_trace(Job& job, TraceRecorder& recorder, const EvaluationData& data,
                 const ModelConfig& model, const Options& options) {
  RoutingTrace trace = recorder.gather();
  agree_patiently(job.transport, {"routing trace"}, [&] {
    if (job.is_root()) {
      trace.model = options.checkpoint;
      trace.token_ids = evaluated_tokens(*data.windows, data.count);
      trace.vocab_size = model.vocab_size;
      trace.sequence_length = data.windows->length();
      save_routing_trace(job.files, options.trace, trace);
    }
  });
}

int evaluate_checkpoint(const Options& options, Job& job) {
  LoadedModel loaded(job, options.checkpoint, options.load);
  const ModelConfig& model = loaded.rank().model().config();
  EvaluationData data;
  open_data(job, options, model, data);
  agree(job.transport, {"options"}, [&] {
    check_mask(options.mask, model);
    if (!options.trace.empty() && model.sub_layers == 0) {
      throw ConfigError("--trace needs a model with experts; this one is dense");
    }
  });
  loaded.rank().context().mask = options.mask;
  return run_alive(job, [&] {
    const Seconds start = job.clock.now();
    std::optional<TraceRecorder> recorder;
    if (!options.trace.empty()) {
      recorder.emplace(loaded.rank());
    }
    const EvaluationResult result =
        evaluate(loaded.rank(), *data.windows, data.count, data.sources ? &*data.sources : nullptr);
    if (recorder) {
      write_trace(job, *recorder, data, model, options);
    }
    if (job.is_root()) {
      print_result(result, data, model, options);
      fmt::print("seconds {:.1f}\n", (job.clock.now() - start).count());
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
                   "Tokens per window; the checkpoint's max_position_embeddings unless given")
      ->check(CLI::PositiveNumber);
  command
      ->add_option("--sequences", options->sequences,
                   "Windows, spread evenly over the data; all unless given")
      ->check(CLI::PositiveNumber);
  CLI::Option* disable_top =
      command
          ->add_option("--disable-top", options->mask.experts,
                       "Leave out each token's N most probable experts in every router")
          ->check(CLI::NonNegativeNumber);
  command
      ->add_option("--disable-from", options->mask.first_layer,
                   "With --disable-top: leave the MoE layers before this one (from 0) alone")
      ->needs(disable_top)
      ->check(CLI::NonNegativeNumber);
  command->add_flag("--loads", options->loads, "Every expert's share of the choices, too");
  command->add_option("--trace", options->trace,
                      "Write every token and its routing to this file (docs/formats.md)");
  add_load_options(*command, options->load);
  command->footer(
      "The data is one stream, cut into windows that follow each other: of length T, window w "
      "reads\n"
      "tokens wT to wT + T - 1 and predicts the token after each. A rest too short for a window "
      "is\n"
      "left out.\n\n"
      "Examples:\n"
      "  cartesian eval runs/quickstart/checkpoints/step-00001000 --data "
      "data/tokens/corpora-valid\n"
      "  cartesian eval CHECKPOINT --data PREFIX --disable-top 1 --loads\n"
      "  cartesian eval CHECKPOINT --data PREFIX --sequences 500 --trace trace.safetensors\n"
      "  mpirun -np 2 cartesian eval CHECKPOINT --data PREFIX --sequences 200");
  return
      [options] { return run_job([&](Job& job) { return evaluate_checkpoint(*options, job); }); };
}

}  // namespace cartesian
