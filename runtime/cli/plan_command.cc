#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/json.h"
#include "planner/picture.h"
#include "planner/replan.h"
#include "runtime/cli/command.h"
#include "runtime/cli/plan_table.h"
#include "runtime/cli/routing_options.h"
#include "runtime/job.h"
#include "runtime/thread_count.h"

namespace cartesian {

namespace {

struct Options {
  std::string topology;
  std::string trace;
  std::string output = "placement.json";
  std::string flow = "auto";
  std::string objective = "auto";
  std::string start;
  PlanOptions plan;
};

constexpr double kMiB = 1024.0 * 1024.0;
constexpr double kMostSeconds = 1e8;  // some years
constexpr double kHomePays = 0.02;    // of a step, to do without pivots

/// What the placement file says about its making.
std::string plan_json(FileSystem& files, const Options& options, const PlacementCosts& costs,
                      std::optional<double> least, int slots) {
  const auto hash_of = [&](const std::string& path) {
    return hash_hex(hash_bytes(files.read(path)));
  };
  return fmt::format(
      "{{\"flow\": \"{}\", \"objective\": \"{}\", \"load_cap\": {}, \"slots\": {}, "
      "\"tokens_per_step\": {}, \"seed\": {}, "
      "\"time_budget_s\": {},\n"
      "  \"copies_per_token\": {}, {}\"rank_imbalance\": {}, \"step_s\": {},\n"
      "  \"trace\": {}, \"trace_xxh3\": \"{}\", \"topology\": {}, \"topology_xxh3\": \"{}\"}}",
      name_of(options.plan.flow), options.objective, options.plan.load_cap, slots,
      options.plan.tokens_per_step, options.plan.seed, options.plan.time_budget_s,
      costs.of(options.plan.flow), least ? fmt::format("\"bound\": {}, ", *least) : "",
      costs.rank_imbalance, costs.time.total(), quote(options.trace), hash_of(options.trace),
      quote(options.topology), hash_of(options.topology));
}

struct Planned {
  Placement placement;
  PlacementCosts costs;
  std::optional<Replan> replan;
};

Planned plan_for(const RoutingTrace& trace, const Cluster& cluster, const PlanOptions& options) {
  if (options.running != nullptr) {
    Replan replan = replan_placement(trace, cluster, options);
    return {replan.placement, replan.after(), replan};
  }
  Placement placement = plan_placement(trace, cluster, options);
  const PlacementCosts costs = evaluate_placement(trace, cluster, placement, options);
  return {std::move(placement), costs, std::nullopt};
}

/// Plans for the flow that is asked for; with auto for the one whose plan has the shorter step.
/// With the same experts pivots never need more copies than home, but they evaluate routers.
Planned plan_flow(const RoutingTrace& trace, const Cluster& cluster, Options& options, int groups) {
  options.plan.flow = chosen_flow(options.flow, groups);
  if (options.flow != "auto") {
    return plan_for(trace, cluster, options.plan);
  }
  Planned planned = plan_for(trace, cluster, options.plan);
  PlanOptions home = options.plan;
  home.flow = Flow::home;
  const auto seconds = [&](const PlanOptions& plan) {
    return evaluate_placement(trace, cluster, planned.placement, plan).time.total();
  };
  if (groups == 2 && seconds(home) < (1 - kHomePays) * seconds(options.plan)) {
    options.plan.flow = Flow::home;
    return plan_for(trace, cluster, home);
  }
  return planned;
}

void print_replan(const Replan& replan, const PlanOptions& options) {
  const Migration& migration = replan.migration;
  if (migration.replicas == 0 && !replan.moves) {
    fmt::print("nothing moves: no better placement was found\n");
    return;
  }
  if (replan.moves && replan.must) {
    fmt::print("the running placement has more experts on a rank than its slots\n");
  }
  if (migration.replicas == 0) {
    fmt::print("to drop: {} replica{}; nothing moves, 0 bytes\n", migration.dropped,
               migration.dropped == 1 ? "" : "s");
    return;
  }
  std::string pays = std::isfinite(replan.steps)
                         ? fmt::format("pays back in {:.0f} step{}", std::ceil(replan.steps),
                                       std::ceil(replan.steps) == 1 ? "" : "s")
                         : "saves no time";
  if (!replan.must) {
    pays += fmt::format(", within a horizon of {:g}{}", options.horizon_steps,
                        replan.moves ? "" : " it does not pay");
  }
  fmt::print(
      "{}: {} replicas, {:.1f} MiB between nodes and {:.1f} MiB inside, take {:.1f} ms; that {}\n",
      replan.moves ? "to move" : "nothing moves", migration.replicas, migration.inter_bytes / kMiB,
      migration.intra_bytes / kMiB, migration.seconds * 1e3, pays);
}

void write_files(FileSystem& files, const RoutingTrace& trace, const Cluster& cluster,
                 const Options& options, const Planned& planned, std::optional<double> least,
                 int slots) {
  files.write_atomically(options.output, planned.placement.to_json(plan_json(
                                             files, options, planned.costs, least, slots)));
  Path picture = Path(options.output).replace_extension(".html");
  if (picture == Path(options.output)) {
    picture += ".html";
  }
  files.write_atomically(picture, make_picture(trace, planned.placement, cluster.topology,
                                               "Placement of " + options.trace));
  fmt::print("written: {}, and a picture of it: {}\n", options.output, picture.string());
}

std::string bound_text(std::optional<double> least, double copies) {
  if (!least) {
    return "copies have no bound where the trace says which homes tokens have";
  }
  return fmt::format(
      "with one replica of each expert no placement needs fewer than {:.3f} copies, {:.1f}% less",
      *least, copies > 0 ? 100 * (1 - *least / copies) : 0);
}

int plan(Options options) {
  const auto files = make_posix_file_system();
  const Cluster cluster = load_cluster(*files, options.topology);
  const RoutingTrace trace = load_routing_trace(*files, options.trace);
  const PlacementShape shape = placement_shape(trace, cluster.topology.ranks());
  const int slots = slots_per_rank(shape, options.plan);
  std::optional<Placement> running;
  options.plan.objective = objective_named(options.objective);
  if (!options.start.empty()) {
    running = Placement::load(*files, options.start, shape);
    options.plan.running = &*running;
  }

  const SteadyClock clock;
  const Seconds start = clock.now();
  const Planned planned = plan_flow(trace, cluster, options, shape.groups);
  const double seconds = (clock.now() - start).count();
  const std::optional<double> least = least_copies(trace, cluster, options.plan);
  const auto costs_of = [&](const Placement& placement) {
    return evaluate_placement(trace, cluster, placement, options.plan);
  };
  fmt::print("{} tokens of {} MoE layers, {} x {} experts; {} ranks on {} nodes, {} slots a rank\n",
             trace.tokens, shape.layers, shape.groups, shape.experts, shape.ranks,
             cluster.topology.nodes(), slots);
  std::vector<PlanRow> rows{
      {"linear", costs_of(Placement::linear(shape, shape.ranks))},
      {"balanced", costs_of(balanced_placement(trace, cluster, options.plan))}};
  if (planned.replan) {
    rows.emplace_back("running", planned.replan->before);
  }
  rows.emplace_back("planned", planned.costs);
  print_plan_table(rows);
  fmt::print(
      "planned for the {} flow in {:.2f} s; {}, and none loads a rank less than {:.3f} of the "
      "mean\n",
      name_of(options.plan.flow), seconds, bound_text(least, planned.costs.of(options.plan.flow)),
      least_rank_imbalance(trace, cluster, options.plan));
  if (planned.replan) {
    print_replan(*planned.replan, options.plan);
  }
  write_files(*files, trace, cluster, options, planned, least, slots);
  return kExitOk;
}

void add_replica_options(CLI::App& command, PlanOptions& plan) {
  CLI::Option* slots =
      command
          .add_option(
              "--slots", plan.slots,
              "Experts on a rank, both groups together; as few as hold all unless given; more "
              "than there are make no difference")
          ->check(CLI::PositiveNumber);
  command
      .add_option("--redundancy", plan.redundancy,
                  "Instead of --slots: room for so many replicas, as a share of the experts; they "
                  "are made where they save more bytes than their gradients cost")
      ->check(CLI::Range(0.0, 1024.0))
      ->excludes(slots)
      ->capture_default_str();
  command
      .add_option("--tokens-per-step", plan.tokens_per_step,
                  "Of training, in which replicas must pay; the trace's unless given")
      ->check(CLI::Range(1.0, kMostTokensPerStep));
}

void add_replan_options(CLI::App& command, Options& options) {
  CLI::Option* start = command.add_option(
      "--start", options.start,
      "Placement that training runs with: only what pays for its move within the horizon moves");
  command
      .add_option("--horizon-steps", options.plan.horizon_steps,
                  "Steps that training will make with the new placement")
      ->check(CLI::PositiveNumber)
      ->needs(start)
      ->capture_default_str();
}

void add_search_options(CLI::App& command, PlanOptions& plan) {
  command.add_option("--seed", plan.seed, "Of the search")->capture_default_str();
  command
      .add_option("--time-budget", plan.time_budget_s,
                  "Time of one thread (2, 2s, 500ms, 1min) for the search, beside reading the "
                  "trace; counted in work done, "
                  "so the result is the same on any machine")
      ->transform(
          CLI::AsNumberWithUnit(std::map<std::string, double>{{"ms", 1e-3}, {"s", 1}, {"min", 60}}))
      ->check(CLI::Range(1e-9, kMostSeconds))
      ->capture_default_str();
  plan.threads = threads_of_process();
  command
      .add_option("--threads", plan.threads,
                  "OMP_NUM_THREADS, or all processors, unless given; the result is the same")
      ->check(CLI::Range(1, 1024));
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
                   "How tokens will travel: home, pivot, or auto: whichever makes the shorter step")
      ->check(CLI::IsMember({"auto", "home", "pivot"}))
      ->capture_default_str();
  command
      ->add_option("--objective", options->objective,
                   "What to make little: copies, step (the predicted time of one), or auto: "
                   "copies, but where a layer would then be slower than unplanned, its step")
      ->check(CLI::IsMember({"auto", "copies", "step"}))
      ->capture_default_str();
  command
      ->add_option("--load-cap", options->plan.load_cap,
                   "Most choices on a node, over the mean; where slots cannot keep it, a little "
                   "above what balancing reaches")
      ->check(CLI::Range(1.0, 1e6))
      ->capture_default_str();
  command
      ->add_option("--load-margin", options->plan.load_margin,
                   "Of the cap, kept free for text that is not the trace's; at most a third of "
                   "what the cap allows above the mean")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  add_replica_options(*command, options->plan);
  add_replan_options(*command, *options);
  add_search_options(*command, options->plan);
  command->footer(
      "Examples:\n"
      "  cartesian eval CHECKPOINT --data PREFIX --sequences 200 --trace trace.safetensors\n"
      "  cartesian plan --topology cluster.toml --trace trace.safetensors -o placement.json\n"
      "  cartesian train CONFIG --set parallel.placement=placement.json\n"
      "  cartesian plan --topology cluster.toml --trace later.safetensors --start placement.json "
      "--horizon-steps 5000 -o next.json");
  return [options] { return plan(*options); };
}

}  // namespace cartesian
