#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>

#include "base/error.h"
#include "planner/synthetic_trace.h"
#include "runtime/cli/command.h"
#include "runtime/job.h"

namespace cartesian {

namespace {

struct Options {
  std::string output;
  SyntheticTraceSpec spec{
      .layers = 2, .experts = 64, .tokens = 16384, .cluster = 8, .prediction = 0.85};
  std::uint64_t seed = 1;
};

std::string describe(const SyntheticTraceSpec& spec) {
  if (spec.cluster == 0) {
    return "independent choices";
  }
  return fmt::format("topics of {} experts that {:.0f}% of the choices stay in", spec.cluster,
                     100 * spec.strength);
}

int make_trace(const Options& options) {
  const SyntheticTraceSpec& spec = options.spec;
  save_routing_trace(*make_posix_file_system(), options.output,
                     make_synthetic_trace(spec, options.seed));
  fmt::print("{} tokens of {} MoE layers, {} x {} experts, {}{} choices a sub-layer, {}\n",
             spec.tokens, spec.layers, spec.groups, spec.experts, spec.ragged ? "up to " : "",
             spec.choices, describe(spec));
  fmt::print("written: {}\n", options.output);
  return kExitOk;
}

void add_shape_options(CLI::App* command, SyntheticTraceSpec& spec) {
  constexpr int kMostExperts = std::numeric_limits<std::int16_t>::max();
  constexpr int kMostWide = std::numeric_limits<std::int32_t>::max();
  command->add_option("--layers", spec.layers, "MoE layers")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command
      ->add_option("--groups", spec.groups,
                   "Sub-layers of a layer: 2, A and B, or 1, a conventional layer")
      ->check(CLI::Range(1, 2))
      ->capture_default_str();
  command->add_option("--experts", spec.experts, "Of a sub-layer")
      ->check(CLI::Range(1, kMostExperts))
      ->capture_default_str();
  command->add_option("--choices", spec.choices, "Experts that a token chooses in a sub-layer")
      ->check(CLI::Range(1, 255))
      ->capture_default_str();
  command->add_flag("--ragged", spec.ragged, "Tokens make 1 to --choices choices, as with top-p");
  command->add_option("--tokens", spec.tokens, "Tokens of the trace")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--hidden", spec.hidden, "Width of the rows that travel")
      ->check(CLI::Range(1, kMostWide))
      ->capture_default_str();
  command->add_option("--expert-width", spec.expert_width, "Of an expert")
      ->check(CLI::Range(1, kMostWide))
      ->capture_default_str();
  command->add_option("--dtype", spec.dtype, "Of the rows that travel")
      ->check(CLI::IsMember({"float32", "bfloat16"}))
      ->capture_default_str();
  command
      ->add_option("--tokens-per-step", spec.tokens_per_step,
                   "Of the training that the trace stands for; 0: not known")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 53))
      ->capture_default_str();
}

void add_structure_options(CLI::App* command, SyntheticTraceSpec& spec) {
  const auto share = CLI::Range(0.0, 1.0);
  command
      ->add_option("--cluster", spec.cluster,
                   "Experts of each sub-layer in a topic, which a token's choices come from; 0: no "
                   "topics")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--strength", spec.strength, "Share of the choices that stay in the topic")
      ->check(share)
      ->capture_default_str();
  command->add_option("--skew", spec.skew, "How much likelier the first experts are: 0 to 1")
      ->check(share)
      ->capture_default_str();
  command
      ->add_option("--drift", spec.drift,
                   "Share of the experts that change topics from first to last token")
      ->check(share)
      ->capture_default_str();
  command
      ->add_option("--vocab-size", spec.vocab_size,
                   "Token ids of the text, by topic; 0: choices only, without a text")
      ->check(CLI::Range(0, std::numeric_limits<std::int32_t>::max()))
      ->capture_default_str();
  command
      ->add_option("--sequence-length", spec.sequence_length,
                   "Tokens of a sequence of the text, which keeps to a topic")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command
      ->add_option("--prediction", spec.prediction,
                   "Share of the speculative choices of B that are right")
      ->check(share)
      ->capture_default_str();
}

}  // namespace

CommandFunction add_trace_command(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "trace", "Make a routing trace with planted structure, to try plans and simulations on");
  command->add_option("-o,--output", options->output, "Routing trace to write (docs/formats.md)")
      ->required();
  add_shape_options(command, options->spec);
  add_structure_options(command, options->spec);
  command->add_option("--seed", options->seed, "The same trace for the same seed")
      ->capture_default_str();
  command->footer(
      "Examples:\n"
      "  cartesian trace -o trace.safetensors --experts 256 --choices 8 --cluster 16 --skew 0.3\n"
      "  cartesian plan --topology cluster.toml --trace trace.safetensors -o placement.json\n"
      "  cartesian simulate --topology cluster.toml --trace trace.safetensors --placement "
      "placement.json");
  return [options] { return make_trace(*options); };
}

}  // namespace cartesian
