#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/json.h"
#include "planner/picture.h"
#include "planner/plan_report.h"
#include "runtime/cli/command.h"
#include "runtime/job.h"

namespace cartesian {

namespace {

struct Options {
  std::string topology;
  std::string trace;
  std::string output = "placement.json";
  std::string flow = "auto";
  PlanOptions plan;
};

constexpr double kMiB = 1024.0 * 1024.0;

void print_row(const std::string& name, const PlacementCosts& costs) {
  const std::string speculative =
      costs.speculative ? fmt::format("{:8.3f}", *costs.speculative) : fmt::format("{:>8}", "-");
  fmt::print(
      "  {:<10} {:8.3f} {:8.3f} {} {:8.3f} {:8.3f} {:8.3f} {:9.1f} {:9.1f} {:6.2f} {:6.2f} {:9.3f} "
      "{:9.1f}\n",
      name, costs.flat, costs.home, speculative, costs.table, costs.gate, costs.oracle,
      costs.inter_bytes / 1024, costs.intra_bytes / 1024, costs.worst_card, costs.rank_imbalance,
      costs.time.total() * 1e3, costs.expert_bytes / kMiB);
}

void print_header(const RoutingTrace& trace, const Cluster& cluster, const PlacementShape& shape,
                  int slots) {
  fmt::print("{} tokens of {} MoE layers, {} x {} experts; {} ranks on {} nodes, {} slots a rank\n",
             trace.tokens, shape.layers, shape.groups, shape.experts, shape.ranks,
             cluster.topology.nodes(), slots);
  fmt::print(
      "copies between nodes per token, all layers, forward; then KiB, the worst card and rank over "
      "their mean, ms a step, MiB of experts\n");
  fmt::print("  {:<10} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>9} {:>9} {:>6} {:>6} {:>9} {:>9}\n",
             "", "flat", "home", "pivot", "table", "gate", "oracle", "inter KiB", "intra KiB",
             "card", "rank", "ms", "MiB");
}

/// What the placement file says about its making.
std::string plan_json(FileSystem& files, const Options& options, const PlacementCosts& costs,
                      double least, int slots) {
  const auto hash_of = [&](const std::string& path) {
    return hash_hex(hash_bytes(files.read(path)));
  };
  return fmt::format(
      "{{\"flow\": \"{}\", \"load_cap\": {}, \"slots\": {}, \"tokens_per_step\": {}, \"seed\": {}, "
      "\"time_budget_s\": {},\n"
      "  \"copies_per_token\": {}, \"bound\": {}, \"rank_imbalance\": {}, \"step_s\": {},\n"
      "  \"trace\": {}, \"trace_xxh3\": \"{}\", \"topology\": {}, \"topology_xxh3\": \"{}\"}}",
      name_of(options.plan.flow), options.plan.load_cap, slots, options.plan.tokens_per_step,
      options.plan.seed, options.plan.time_budget_s, costs.of(options.plan.flow), least,
      costs.rank_imbalance, costs.time.total(), quote(options.trace), hash_of(options.trace),
      quote(options.topology), hash_of(options.topology));
}

/// The flow to plan for. With the same experts a pivot never needs more copies than home: it may be
/// home.
Flow chosen_flow(const std::string& name, std::size_t groups) {
  if (name == "auto") {
    return groups == 2 ? Flow::pivot : Flow::home;
  }
  return *parse_flow(name);
}

int plan(Options options) {
  const auto files = make_posix_file_system();
  const Cluster cluster = load_cluster(*files, options.topology);
  const RoutingTrace trace = load_routing_trace(*files, options.trace);
  const PlacementShape shape = placement_shape(trace, cluster.topology.ranks());
  options.plan.flow = chosen_flow(options.flow, static_cast<std::size_t>(shape.groups));
  const int slots = slots_per_rank(shape, options.plan);

  const SteadyClock clock;
  const Seconds start = clock.now();
  const Placement planned = plan_placement(trace, cluster, options.plan);
  const double seconds = (clock.now() - start).count();
  const auto costs_of = [&](const Placement& placement) {
    return evaluate_placement(trace, cluster, placement, options.plan);
  };
  const PlacementCosts costs = costs_of(planned);
  const double least = least_copies(trace, cluster, options.plan);

  print_header(trace, cluster, shape, slots);
  print_row("linear", costs_of(Placement::linear(shape, shape.ranks)));
  print_row("balanced", costs_of(balanced_placement(trace, cluster, options.plan)));
  print_row("planned", costs);
  const double copies = costs.of(options.plan.flow);
  fmt::print(
      "planned for the {} flow in {:.2f} s; with one replica of each expert no placement needs "
      "fewer "
      "than {:.3f} copies, {:.1f}% less\n",
      name_of(options.plan.flow), seconds, least, copies > 0 ? 100 * (1 - least / copies) : 0);
  files->write_atomically(options.output,
                          planned.to_json(plan_json(*files, options, costs, least, slots)));
  Path picture = Path(options.output).replace_extension(".html");
  if (picture == Path(options.output)) {
    picture += ".html";
  }
  files->write_atomically(
      picture, make_picture(trace, planned, cluster.topology, "Placement of " + options.trace));
  fmt::print("written: {}, and a picture of it: {}\n", options.output, picture.string());
  return kExitOk;
}

}  // namespace

CommandFunction add_plan_command(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("plan", "Place experts on nodes and ranks so that tokens travel less");
  command->add_option("--topology", options->topology, "TOML file: nodes, links (docs/formats.md)")
      ->required();
  command->add_option("--trace", options->trace, "Routing trace of 'cartesian eval --trace'")
      ->required();
  command
      ->add_option("-o,--output", options->output,
                   "Placement file to write; a picture of it, .html, goes beside it")
      ->capture_default_str();
  command
      ->add_option("--flow", options->flow,
                   "How tokens will travel: home, pivot, or auto: the pivot flow where there are "
                   "two sub-layers")
      ->check(CLI::IsMember({"auto", "home", "pivot"}))
      ->capture_default_str();
  command
      ->add_option("--load-cap", options->plan.load_cap,
                   "Most choices on a node, over the mean; where slots cannot keep it, a little "
                   "above what balancing reaches")
      ->check(CLI::Range(1.0, 1e6))
      ->capture_default_str();
  CLI::Option* slots =
      command
          ->add_option("--slots", options->plan.slots,
                       "Experts on a rank, both groups together; as few as hold all unless given")
          ->check(CLI::PositiveNumber);
  command
      ->add_option("--redundancy", options->plan.redundancy,
                   "Instead of --slots: room for so many replicas, as a share of the experts; they "
                   "are made where they save more bytes than their gradients cost")
      ->check(CLI::Range(0.0, 1024.0))
      ->excludes(slots)
      ->capture_default_str();
  command
      ->add_option("--tokens-per-step", options->plan.tokens_per_step,
                   "Of training, in which replicas must pay; the trace's unless given")
      ->check(CLI::PositiveNumber);
  command->add_option("--seed", options->plan.seed, "Of the search")->capture_default_str();
  command
      ->add_option(
          "--time-budget", options->plan.time_budget_s,
          "Seconds of one thread for the search, beside reading the trace; counted in work done, "
          "so the result is the same on any machine")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  options->plan.threads = threads_per_rank(0, Topology::single_node(1), 0);
  command
      ->add_option("--threads", options->plan.threads,
                   "All cores unless given; the result is the same")
      ->check(CLI::Range(1, 1024));
  command->footer(
      "Examples:\n"
      "  cartesian eval CHECKPOINT --data PREFIX --sequences 200 --trace trace.safetensors\n"
      "  cartesian plan --topology cluster.toml --trace trace.safetensors -o placement.json\n"
      "  cartesian train CONFIG --set parallel.placement=placement.json");
  return [options] { return plan(*options); };
}

}  // namespace cartesian
