#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>

#include "base/error.h"
#include "base/hash.h"
#include "planner/cluster.h"
#include "planner/homes.h"
#include "runtime/cli/command.h"
#include "runtime/cli/routing_options.h"
#include "runtime/job.h"
#include "runtime/thread_count.h"

namespace cartesian {

namespace {

struct Options {
  std::string topology;
  std::string trace;
  std::string placement;
  std::string output = "homes.safetensors";
  std::string check;
  std::string flow = "auto";
  std::string pivot = "auto";
  std::int64_t batch_sequences = 64;
  int threads = 1;
};

RoutingTrace load_text(FileSystem& files, const std::string& path) {
  RoutingTrace trace = load_routing_trace(files, path);
  if (!trace.has_text()) {
    throw ConfigError(
        fmt::format("{} has no token ids: record it again with 'cartesian eval CHECKPOINT --data "
                    "PREFIX --trace FILE'",
                    path));
  }
  if (trace.tokens == 0) {
    throw ConfigError(fmt::format("{} has no tokens", path));
  }
  return trace;
}

/// The routing of tokens over the cluster, which depends on the trace only by its rule.
struct Routing {
  const Cluster& cluster;
  const Placement& placement;
  Flow flow;
  PivotRule rule;
  int threads;

  HomeCosts costs(const RoutingTrace& trace) const {
    return {trace, placement, cluster.topology, flow, rule, threads};
  }
};

void print_row(const std::string& name, const HomeSavings& copies) {
  const auto fewer = [&](double than) {
    return copies.uniform > 0 ? 100 * (1 - than / copies.uniform) : 0;
  };
  fmt::print("  {:<10} {:12.3f} {:12.3f} {:7.2f}% {:12.3f} {:7.2f}%\n", name, copies.uniform,
             copies.by_table, fewer(copies.by_table), copies.at_best, fewer(copies.at_best));
}

void print_header(const RoutingTrace& trace, const PlacementShape& shape, const Routing& routing,
                  std::int64_t batch) {
  fmt::print(
      "{} tokens in sequences of {}, a vocabulary of {}; {} MoE layers, {} x {} experts; {} ranks "
      "on {} nodes; {} flow{}\n",
      trace.tokens, trace.sequence_length, trace.vocab_size, shape.layers, shape.groups,
      shape.experts, shape.ranks, routing.cluster.topology.nodes(), name_of(routing.flow),
      routing.flow == Flow::pivot ? fmt::format(", pivots by {}", name_of(routing.rule)) : "");
  fmt::print(
      "copies between nodes per token, all layers, forward, in batches of {} sequences: homes as "
      "they "
      "come, by the table, and by what each sequence would save\n"
      "  {:<10} {:>12} {:>12} {:>8} {:>12} {:>8}\n",
      batch, "text", "as they come", "by the table", "fewer", "at best", "fewer");
}

void check_held_out(const RoutingTrace& held_out, const RoutingTrace& trace, const Options& options,
                    int ranks) {
  if (placement_shape(held_out, ranks) != placement_shape(trace, ranks) ||
      held_out.vocab_size != trace.vocab_size) {
    throw ConfigError(
        fmt::format("{} is not of the model that {} is of: layers, experts or the "
                    "vocabulary differ",
                    options.check, options.trace));
  }
}

int make_homes(const Options& options) {
  const auto files = make_posix_file_system();
  const Cluster cluster = load_cluster(*files, options.topology);
  const Topology& topology = cluster.topology;
  const RoutingTrace trace = load_text(*files, options.trace);
  const PlacementShape shape = placement_shape(trace, topology.ranks());
  const Placement placement = load_placement(*files, options.placement, shape, topology);
  RoutingTrace held_out;
  if (!options.check.empty()) {
    held_out = load_text(*files, options.check);
    check_held_out(held_out, trace, options, topology.ranks());
  }
  const Routing routing{.cluster = cluster,
                        .placement = placement,
                        .flow = chosen_flow(options.flow, shape.groups),
                        .rule = chosen_rule(options.pivot, trace),
                        .threads = options.threads};

  const HomeCosts costs = routing.costs(trace);
  HomeTable table = make_home_table(trace, costs);
  print_header(trace, shape, routing, options.batch_sequences);
  print_row("trace", measure_homes(trace, costs, table, topology, options.batch_sequences));
  if (!options.check.empty()) {
    print_row("check", measure_homes(held_out, routing.costs(held_out), table, topology,
                                     options.batch_sequences));
  }
  const auto hash_of = [&](const std::string& path) {
    return hash_hex(hash_bytes(files->read(path)));
  };
  const bool planned = options.placement != "linear" && options.placement != "local";
  table.flow = name_of(routing.flow);
  table.trace = options.trace;
  table.trace_xxh3 = hash_of(options.trace);
  table.placement = options.placement;
  table.placement_xxh3 = planned ? hash_of(options.placement) : "";
  save_home_table(*files, options.output, table);
  fmt::print("written: {}\n", options.output);
  return kExitOk;
}

void add_input_options(CLI::App* command, Options& options) {
  command->add_option("--topology", options.topology, "TOML file: nodes, links (docs/formats.md)")
      ->required();
  command
      ->add_option("--trace", options.trace,
                   "Routing trace with its text, of 'cartesian eval --trace'")
      ->required();
  command
      ->add_option("--placement", options.placement,
                   "Placement file of 'cartesian plan'; or linear, or local: all experts in every "
                   "node")
      ->required();
  command->add_option("--check", options.check,
                      "Trace of other text of the same model, to see what the table saves there");
}

}  // namespace

CommandFunction add_homes_command(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "homes",
      "Make a table by which data loaders give sequences homes, so that tokens travel less");
  add_input_options(command, *options);
  command->add_option("-o,--output", options->output, "Table to write (docs/formats.md)")
      ->capture_default_str();
  add_flow_option(*command, options->flow);
  command
      ->add_option("--pivot", options->pivot,
                   "What pivots are chosen by: speculative, table, gate, oracle, or auto: "
                   "speculative if the trace has such choices, else table")
      ->check(CLI::IsMember({"auto", "speculative", "table", "gate", "oracle"}))
      ->capture_default_str();
  command
      ->add_option("--batch-sequences", options->batch_sequences,
                   "Sequences among which homes are balanced, in what is printed: those of a "
                   "micro-batch")
      ->check(CLI::Range(1, std::numeric_limits<std::int32_t>::max()))
      ->capture_default_str();
  options->threads = threads_of_process();
  command
      ->add_option("--threads", options->threads,
                   "OMP_NUM_THREADS, or all processors, unless given; the result is the same")
      ->check(CLI::Range(1, 1024));
  command->footer(
      "Examples:\n"
      "  cartesian eval CHECKPOINT --data PREFIX --sequences 150 --trace trace.safetensors\n"
      "  cartesian plan --topology cluster.toml --trace trace.safetensors -o placement.json\n"
      "  cartesian eval CHECKPOINT --data PREFIX-valid --sequences 100 --trace check.safetensors\n"
      "  cartesian homes --topology cluster.toml --trace trace.safetensors \\\n"
      "    --placement placement.json --check check.safetensors -o homes.safetensors");
  return [options] { return make_homes(*options); };
}

}  // namespace cartesian
