#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "planner/layer_schedule.h"
#include "planner/perfetto.h"
#include "planner/plan.h"
#include "planner/simulation.h"
#include "runtime/cli/command.h"
#include "runtime/cli/routing_options.h"
#include "runtime/job.h"
#include "runtime/thread_count.h"

namespace cartesian {

namespace {

struct Options {
  std::string topology;
  std::string trace;
  std::string placement = "linear";
  int expert_ranks = 0;
  std::string flow = "auto";
  std::string pivot = "auto";
  std::vector<int> chunks = {1, 2, 4, 8};
  std::int64_t hidden = 0;
  std::int64_t expert_width = 0;
  std::string dtype;
  std::string timeline;
  int timeline_nodes = 4;
  SimulationOptions simulation;
};

constexpr double kMilli = 1e3;
constexpr double kMiB = 1024.0 * 1024.0;

RoutingTrace load_trace(FileSystem& files, const Options& options) {
  RoutingTrace trace = load_routing_trace(files, options.trace);
  if (trace.tokens == 0) {
    throw ConfigError(fmt::format("{} has no tokens to simulate", options.trace));
  }
  trace.hidden = options.hidden > 0 ? options.hidden : trace.hidden;
  trace.expert_width = options.expert_width > 0 ? options.expert_width : trace.expert_width;
  trace.dtype = options.dtype.empty() ? trace.dtype : options.dtype;
  return trace;
}

Placement placement_of(FileSystem& files, const Options& options, const PlacementShape& shape,
                       const Topology& topology) {
  if (options.expert_ranks == 0) {
    return load_placement(files, options.placement, shape, topology);
  }
  if (options.placement != "linear") {
    throw ConfigError("--expert-ranks is of a linear placement: leave --placement out");
  }
  if (shape.ranks % options.expert_ranks != 0) {
    throw ConfigError(fmt::format("--expert-ranks {} does not divide the cluster's {} ranks",
                                  options.expert_ranks, shape.ranks));
  }
  return Placement::linear(shape, options.expert_ranks);
}

void print_row(int chunks, const StepSimulation& step) {
  fmt::print("  {:>6} {:10.3f} {:10.3f} {:10.3f} {:10.3f} {:10.3f} {:9.1f}% {:9.1f}%\n", chunks,
             step.seconds * kMilli, step.all.compute.most_s * kMilli,
             step.all.intra.most_s * kMilli, step.all.inter.most_s * kMilli,
             step.exposed_s() * kMilli, 100 * step.compute_utilisation(),
             100 * step.card_utilisation());
}

void print_phases(const StepSimulation& step) {
  fmt::print("  {:<10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>11} {:>11}\n", "", "compute",
             "most", "intra", "most", "inter", "most", "intra MiB", "inter MiB");
  const auto row = [](std::string_view name, const StepSimulation::Phase& phase) {
    fmt::print("  {:<10} {:10.3f} {:10.3f} {:10.3f} {:10.3f} {:10.3f} {:10.3f} {:11.1f} {:11.1f}\n",
               name, phase.compute.mean_s * kMilli, phase.compute.most_s * kMilli,
               phase.intra.mean_s * kMilli, phase.intra.most_s * kMilli,
               phase.inter.mean_s * kMilli, phase.inter.most_s * kMilli, phase.intra_bytes / kMiB,
               phase.inter_bytes / kMiB);
  };
  for (int i = 0; i < kStepPhases; ++i) {
    const StepSimulation::Phase& phase = step.phases.at(static_cast<std::size_t>(i));
    if (phase.compute.most_s > 0 || phase.intra.most_s > 0 || phase.inter.most_s > 0) {
      row(name_of(static_cast<StepPhase>(i)), phase);
    }
  }
  row("all", step.all);
}

/// The nodes of the busiest card and rank, then the first ones.
std::vector<int> nodes_to_show(const StepSimulation& step, const Topology& topology, int count) {
  std::vector<int> nodes;
  const auto add = [&](int node) {
    if (static_cast<int>(nodes.size()) < count && std::ranges::find(nodes, node) == nodes.end()) {
      nodes.push_back(node);
    }
  };
  add(step.all.inter.most);
  add(topology.node(step.all.compute.most));
  for (int node = 0; node < topology.nodes(); ++node) {
    add(node);
  }
  return nodes;
}

void write_timeline(FileSystem& files, const Options& options, const RoutingTrace& trace,
                    const Cluster& cluster, const Placement& placement,
                    const StepSimulation& fastest, int chunks) {
  SimulationOptions again = options.simulation;
  again.chunks = chunks;
  again.timeline_nodes = nodes_to_show(fastest, cluster.topology, options.timeline_nodes);
  const StepSimulation step = simulate_step(trace, cluster, placement, again);
  files.write_atomically(options.timeline, to_perfetto(step.spans, cluster.topology));
  fmt::print("written: {}, {} of {} nodes with {} chunks; https://ui.perfetto.dev opens it\n",
             options.timeline, again.timeline_nodes.size(), cluster.topology.nodes(), chunks);
}

int simulate(Options options) {
  const auto files = make_posix_file_system();
  const Cluster cluster = load_cluster(*files, options.topology);
  const RoutingTrace trace = load_trace(*files, options);
  const PlacementShape shape = placement_shape(trace, cluster.topology.ranks());
  const Placement placement = placement_of(*files, options, shape, cluster.topology);
  SimulationOptions& simulation = options.simulation;
  simulation.flow = chosen_flow(options.flow, shape.groups);
  simulation.rule = chosen_rule(options.pivot, trace);

  fmt::print("{} tokens of {} MoE layers, {} x {} experts; {} ranks on {} nodes; {} flow{}\n",
             trace.tokens, shape.layers, shape.groups, shape.experts, shape.ranks,
             cluster.topology.nodes(), name_of(simulation.flow),
             simulation.flow == Flow::pivot
                 ? fmt::format(", pivots by {}", name_of(simulation.rule))
                 : "");
  fmt::print(
      "a step of {:.0f} tokens, MoE layers only, in ms: what the busiest rank computes, the "
      "busiest "
      "link and card, how long even that rank waits; mean use of ranks and cards\n"
      "  {:>6} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}\n",
      tokens_of_step(trace, simulation), "chunks", "step", "compute", "intra", "inter", "exposed",
      "ranks", "cards");
  StepSimulation fastest;
  int fastest_chunks = 0;
  for (const int chunks : options.chunks) {
    simulation.chunks = chunks;
    StepSimulation step = simulate_step(trace, cluster, placement, simulation);
    print_row(chunks, step);
    if (fastest_chunks == 0 || step.seconds < fastest.seconds) {
      fastest = std::move(step);
      fastest_chunks = chunks;
    }
  }
  fmt::print("fastest with {} chunks; busy by phase, mean and most, forward and backward, ms:\n",
             fastest_chunks);
  print_phases(fastest);
  fmt::print("the busiest card is node {}'s, the busiest rank {}\n", fastest.all.inter.most,
             fastest.all.compute.most);
  if (!options.timeline.empty()) {
    write_timeline(*files, options, trace, cluster, placement, fastest, fastest_chunks);
  }
  return kExitOk;
}

void add_input_options(CLI::App* command, Options& options) {
  command->add_option("--topology", options.topology, "TOML file: nodes, links (docs/formats.md)")
      ->required();
  command
      ->add_option("--trace", options.trace,
                   "Routing trace of 'cartesian eval --trace' or 'cartesian trace'")
      ->required();
  command
      ->add_option(
          "--placement", options.placement,
          "Placement file of 'cartesian plan'; linear; or local: all experts in every node")
      ->capture_default_str();
  command
      ->add_option(
          "--expert-ranks", options.expert_ranks,
          "Of a linear placement: ranks that experts are spread over, with replicas on the "
          "next so many; all unless given")
      ->check(CLI::PositiveNumber);
  command
      ->add_option(
          "--tokens-per-step", options.simulation.tokens_per_step,
          "That the trace's tokens stand for; what the trace says, or else its own, unless "
          "given")
      ->check(CLI::Range(1.0, kMostTokensPerStep));
  constexpr int kMostWide = std::numeric_limits<std::int32_t>::max();
  command->add_option("--hidden", options.hidden, "Width of a row, instead of the trace's")
      ->check(CLI::Range(1, kMostWide));
  command->add_option("--expert-width", options.expert_width, "Instead of the trace's")
      ->check(CLI::Range(1, kMostWide));
  command->add_option("--dtype", options.dtype, "Of rows and gradients, instead of the trace's")
      ->check(CLI::IsMember({"float32", "bfloat16"}));
}

void add_step_options(CLI::App* command, Options& options) {
  add_flow_option(*command, options.flow);
  command
      ->add_option("--pivot", options.pivot,
                   "What pivots are chosen by: speculative, table, gate, oracle, or auto: "
                   "speculative if the trace has such choices, else table")
      ->check(CLI::IsMember({"auto", "speculative", "table", "gate", "oracle"}))
      ->capture_default_str();
  command->add_option("--chunks", options.chunks, "Chunks of a rank's tokens; several: a row each")
      ->delimiter(',')
      ->check(CLI::Range(1, kMostChunks))
      ->capture_default_str();
  command
      ->add_option("--shared-width", options.simulation.shared_width,
                   "Of the shared experts, which pivots and finishers compute; 0: none")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      ->add_option("--attention-flops", options.simulation.attention_flops,
                   "Of a token at home before every layer, forward")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
}

}  // namespace

CommandFunction add_simulate_command(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "simulate", "Simulate a training step of a placement on a cluster, event by event");
  add_input_options(command, *options);
  add_step_options(command, *options);
  command->add_option("--timeline", options->timeline,
                      "Write when ranks and links of the fastest step are busy, for Perfetto");
  command
      ->add_option("--timeline-nodes", options->timeline_nodes,
                   "Nodes in it: those of the busiest card and rank, then the first")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  options->simulation.threads = threads_of_process();
  command
      ->add_option("--threads", options->simulation.threads,
                   "OMP_NUM_THREADS, or all processors, unless given; the result is the same")
      ->check(CLI::Range(1, 1024));
  command->footer(
      "Examples:\n"
      "  cartesian trace -o trace.safetensors --experts 256 --choices 8 --cluster 16\n"
      "  cartesian plan --topology cluster.toml --trace trace.safetensors -o placement.json\n"
      "  cartesian simulate --topology cluster.toml --trace trace.safetensors \\\n"
      "    --placement placement.json --chunks 1,2,4,8 --timeline timeline.json");
  return [options] { return simulate(*options); };
}

}  // namespace cartesian
