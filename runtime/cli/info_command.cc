#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "runtime/checkpoint/checkpoint_files.h"
#include "runtime/cli/command.h"
#include "runtime/config/config.h"
#include "runtime/job.h"
#include "runtime/model/model_memory.h"
#include "runtime/model/parameter_count.h"

namespace cartesian {

namespace {

constexpr double kMillion = 1e6;
constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;

struct Options {
  std::string config;
  std::vector<std::string> settings;
  int ranks = 1;
  int nodes = 1;
};

/// The configuration of a TOML file, or the model of a checkpoint with the default training.
Config load(FileSystem& files, const Options& options) {
  const Path path = options.config;
  if (!files.exists(path / kConfigFile)) {
    return load_config(files, path, options.settings);
  }
  if (!options.settings.empty()) {
    throw ConfigError("--set changes a TOML file's configuration, not a checkpoint's");
  }
  Config config;
  config.model = parse_config_json(files.read(path / kConfigFile), (path / kConfigFile).string());
  config.train.sequence_length = config.model.max_position_embeddings;
  return config;
}

std::string describe_routing(const ModelConfig& model) {
  switch (model.routing_kind()) {
    case RoutingKind::top_p:
      return fmt::format("top-p {:g}", model.moe_top_p);
    case RoutingKind::hash:
      return fmt::format("hash top-{}", model.moe_top_k);
    case RoutingKind::top_k:
      break;
  }
  return fmt::format("top-{}", model.moe_top_k);
}

std::string describe(const ModelConfig& model) {
  const std::string blocks =
      fmt::format("{} blocks of width {}", model.num_hidden_layers, model.hidden_size);
  if (model.sub_layers == 0) {
    return fmt::format("dense, {}", blocks);
  }
  const char* kind = model.sub_layers == 2  ? "CartesianMoE"
                     : model.fine_grained() ? "fine-grained MoE"
                                            : "conventional MoE";
  return fmt::format("{}, {}, {} of them MoE: {}{} experts of width {}, {}, {}", kind, blocks,
                     model.moe_layers(), model.sub_layers == 2 ? "2 x " : "", model.num_experts,
                     model.expert_width(), describe_routing(model),
                     model.use_residual ? "shared expert" : "no shared expert");
}

void print_parameters(const ModelConfig& model) {
  const ParameterCount count = count_parameters(model);
  const auto choices = static_cast<double>(model.moe_top_k);
  fmt::print("parameters, millions        total  activated\n");
  fmt::print("  matrices only        {:12.2f} {:10.2f}\n", count.matrices() / kMillion,
             count.activated_matrices(choices) / kMillion);
  fmt::print("  all                  {:12.2f} {:10.2f}\n", count.all() / kMillion,
             count.activated(choices) / kMillion);
  if (model.sub_layers > 0 && model.routing_kind() == RoutingKind::top_p) {
    fmt::print("  (activated with {} experts; top-p takes 1 to {})\n", model.moe_top_k,
               model.max_choices());
  }
}

/// Ranks that one copy of the experts is spread over; of a placement file it is not known here.
int expert_ranks(const Config& config, const Options& options) {
  if (config.parallel.placement == "local") {
    return std::max(1, options.ranks / options.nodes);
  }
  const std::int64_t spread =
      config.parallel.expert_ranks > 0 ? config.parallel.expert_ranks : options.ranks;
  if (spread > options.ranks) {
    throw ConfigError(
        fmt::format("parallel.expert_ranks = {} is more than --ranks {}", spread, options.ranks));
  }
  return static_cast<int>(spread);
}

int jittered_sub_layers(const Config& config) {
  int count = 0;
  for (std::int64_t group = 0; group < config.model.sub_layers; ++group) {
    count += config.train.router_jitter.of(static_cast<std::size_t>(group)) > 0 ? 1 : 0;
  }
  return count;
}

/// Nodes that a copy of the experts is spread over: ranks that share one are neighbours.
double expert_nodes(const Options& options, int spread) {
  return std::max(1.0, static_cast<double>(spread) * options.nodes / options.ranks);
}

/// Nodes beside its own that a token visits in a sub-layer, once each, if experts are evenly used.
double nodes_visited(const ModelConfig& model, double nodes) {
  const auto experts = static_cast<double>(model.num_experts);
  double missed = 1;  // that none of its experts is on a node
  for (std::int64_t i = 0; i < model.moe_top_k; ++i) {
    const auto taken = static_cast<double>(i);
    missed *= std::max(0.0, (experts - experts / nodes - taken) / (experts - taken));
  }
  return (nodes - 1) * (1 - missed);
}

void print_memory(const Config& config, const Options& options, int spread) {
  const int ranks = options.ranks;
  const std::size_t element = config.train.dtype == "bfloat16" ? 2 : 4;
  const double tokens = static_cast<double>(config.train.micro_batch_sequences) *
                        static_cast<double>(config.train.sequence_length) / ranks;
  const MemoryPlan plan{.ranks = ranks,
                        .expert_ranks = spread,
                        .tokens = tokens,
                        .element = element,
                        .recompute = config.train.recompute == "block",
                        .shard_optimizer = config.parallel.shard_optimizer,
                        .jittered = jittered_sub_layers(config),
                        .rails = config.exchange.flow == "flat" || config.model.sub_layers == 0
                                     ? 0
                                     : nodes_visited(config.model, expert_nodes(options, spread))};
  const RankMemory memory = estimate_memory(config.model, plan);
  const auto line = [](const std::string& what, double bytes) {
    fmt::print("  {:<32} {:8.2f}\n", what, bytes / kGiB);
  };
  fmt::print("memory on each of {} rank{}, about, GiB\n", ranks, ranks == 1 ? "" : "s");
  line("weights, gradients, moments", memory.parameters);
  line("weights as products need them", memory.packed);
  line(fmt::format("activations of {:.0f} tokens", tokens), memory.activations);
  line("in all", memory.total());
  const auto saving = [&](const char* setting, bool MemoryPlan::*option) {
    MemoryPlan without = plan;
    MemoryPlan with = plan;
    without.*option = false;
    with.*option = true;
    fmt::print("  {} {} {:.2f}\n", setting, plan.*option ? "saves" : "would save",
               (estimate_memory(config.model, without).total() -
                estimate_memory(config.model, with).total()) /
                   kGiB);
  };
  saving("train.recompute = \"block\"", &MemoryPlan::recompute);
  saving("parallel.shard_optimizer = true", &MemoryPlan::shard_optimizer);
}

/// With evenly used experts, spread evenly over the ranks, in the flat flow: every choice is a
/// copy, there and back.
void print_exchange(const Config& config, const Options& options, int spread) {
  const ModelConfig& model = config.model;
  if (model.sub_layers == 0) {
    fmt::print("exchange: none, a dense model\n");
    return;
  }
  const double choices = static_cast<double>(model.moe_top_k * model.sub_layers);
  const double nodes = expert_nodes(options, spread);
  const double between_ranks = 2 * choices * (1 - 1.0 / spread);
  const double between_nodes = 2 * choices * (1 - 1 / nodes);
  const double bytes =
      static_cast<double>(model.hidden_size) * (config.train.dtype == "bfloat16" ? 2 : 4);
  const bool recompute = config.train.recompute == "block";
  const int passes = recompute ? 3 : 2;  // forward, once more if it is recomputed, and backward
  const double step = passes * static_cast<double>(model.moe_layers()) * bytes;
  const std::string& placement = config.parallel.placement;
  if (placement != "linear" && placement != "local") {
    fmt::print("(as if the experts of {} were spread evenly over all ranks)\n", placement);
  }
  fmt::print("exchange per token, flat flow, experts evenly used\n");
  fmt::print("  copies between ranks {:.2f}, between nodes {:.2f} (each MoE layer, forward)\n",
             between_ranks, between_nodes);
  fmt::print(
      "  KiB between ranks {:.1f}, between nodes {:.1f} (all MoE layers, a training step{})\n",
      step * between_ranks / 1024, step * between_nodes / 1024,
      recompute ? " with its recomputation" : "");
  if (config.exchange.flow != "flat") {
    fmt::print("  once to each node instead: {:.2f} between nodes, and fewer over pivots\n",
               2 * static_cast<double>(model.sub_layers) * nodes_visited(model, nodes));
  }
}

int info(const Options& options) {
  const auto files = make_posix_file_system();
  const Config config = load(*files, options);
  if (options.nodes > options.ranks) {
    throw ConfigError(
        fmt::format("--nodes {} is more than --ranks {}", options.nodes, options.ranks));
  }
  fmt::print("{}\n", describe(config.model));
  print_parameters(config.model);
  const int spread = expert_ranks(config, options);
  print_memory(config, options, spread);
  print_exchange(config, options, spread);
  return kExitOk;
}

}  // namespace

CommandFunction add_info_command(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "info", "Parameters, memory and exchange volume of a configuration or checkpoint");
  command->add_option("config", options->config, "TOML file or checkpoint directory")->required();
  command->add_option("--set", options->settings, "Override a key: section.key=value")
      ->allow_extra_args(false)
      ->type_name("KEY=VALUE");
  command->add_option("--ranks", options->ranks, "Ranks of the job")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--nodes", options->nodes, "Nodes that the ranks are spread over")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->footer(
      "Examples:\n"
      "  cartesian info configs/paper/base-cartesian.toml\n"
      "  cartesian info configs/paper/large-cartesian.toml --ranks 32 --nodes 4\n"
      "  cartesian info runs/quickstart/checkpoints/step-00000450");
  return [options] { return info(*options); };
}

}  // namespace cartesian
