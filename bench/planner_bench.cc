// What planning saves: copies between nodes per token of a trace that was not planned on, for
// placements planned on another, over random placements with as many slots.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <ctime>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/random.h"
#include "planner/plan_report.h"
#include "planner/synthetic_trace.h"
#include "planner/traffic.h"

namespace cartesian::bench {
namespace {

struct Options {
  std::string plan_trace;
  std::string trace;
  std::vector<int> nodes{2, 4, 8, 16};
  int random_placements = 8;
  int layers = 60;
  bool crossover = false;
  std::vector<std::string> timed{"balance", "replan", "large"};
  PlanOptions plan;
};

/// Every node its slots, filled at random.
Placement random_placement(const PlacementShape& shape, std::uint64_t seed) {
  std::vector<std::vector<int>> replicas;
  const std::uint64_t key = random_key(seed, "random placement");
  const int experts = shape.groups * shape.experts;
  const int slots = (experts + shape.ranks - 1) / shape.ranks;
  for (int layer = 0; layer < shape.layers; ++layer) {
    for (int expert = 0; expert < experts; ++expert) {
      const std::uint64_t place =
          random_permute(key + static_cast<std::uint64_t>(layer),
                         static_cast<std::uint64_t>(expert), static_cast<std::uint64_t>(experts));
      replicas.push_back({static_cast<int>(place) / slots});
    }
  }
  return {shape, std::move(replicas)};
}

void compare(const RoutingTrace& planned_on, const RoutingTrace& trace, int nodes,
             const Options& options) {
  const Cluster cluster = uniform_cluster(nodes, 1);
  const PlacementShape shape = placement_shape(trace, nodes);
  const SteadyClock clock;
  PlanOptions pivot = options.plan;
  pivot.flow = Flow::pivot;
  PlanOptions home = options.plan;
  home.flow = Flow::home;
  const auto costs_of = [&](const Placement& placement) {
    return evaluate_placement(trace, cluster, placement, pivot);
  };
  double random = 0;
  for (int seed = 0; seed < options.random_placements; ++seed) {
    random += costs_of(random_placement(shape, static_cast<std::uint64_t>(seed))).home /
              options.random_placements;
  }
  const double start = clock.now().count();
  const Placement placement = plan_placement(planned_on, cluster, pivot);
  const double seconds = clock.now().count() - start;
  const PlacementCosts planned = costs_of(placement);
  const PlacementCosts best_home = costs_of(plan_placement(planned_on, cluster, home));
  const PlacementCosts balanced = costs_of(balanced_placement(planned_on, cluster, pivot));
  const double layers = shape.layers;
  fmt::print(
      "{:3d} nodes: home random {:.3f}, home planned {:.3f}, pivot planned {:.3f} (oracle {:.3f}, "
      "table {:.3f}, gate {:.3f})\n",
      nodes, random / layers, best_home.home / layers, planned.pivot() / layers,
      planned.oracle / layers, planned.table / layers, planned.gate / layers);
  fmt::print(
      "           {:.1f}% fewer than home random, {:.1f}% fewer than home planned, {:.2f}% above "
      "the oracle; load {:.3f} (balanced {:.3f}, home planned {:.3f}); {:.2f} s\n",
      100 * (1 - planned.pivot() / random), 100 * (1 - planned.pivot() / best_home.home),
      100 * (planned.pivot() / planned.oracle - 1), planned.rank_imbalance, balanced.rank_imbalance,
      best_home.rank_imbalance, seconds);
}

/// Of what tokens a step must have, per node, until replicas pay: as many replicas as the plan has
/// save what their gradients cost from 3 D s / dC tokens on.
void find_crossover(const RoutingTrace& planned_on, int nodes, const Options& options) {
  const Cluster cluster = uniform_cluster(nodes, 1);
  const PlacementShape shape = placement_shape(planned_on, nodes);
  const int once = shape.layers * shape.groups * shape.experts;
  PlanOptions plan = options.plan;
  plan.redundancy = std::max(plan.redundancy, 1.0);
  const auto replicas_of = [&](const Placement& placement) {
    int held = -once;
    for (int layer = 0; layer < shape.layers; ++layer) {
      for (int group = 0; group < shape.groups; ++group) {
        for (int rank = 0; rank < nodes; ++rank) {
          held += static_cast<int>(placement.experts_on(layer, group, rank).size());
        }
      }
    }
    return held;
  };
  double alone = 0;
  fmt::print(
      "{} nodes, expert width {}: tokens per node and step, replicas, copies per token, "
      "3 D s / dC\n",
      nodes, planned_on.expert_width);
  for (double tokens = 64; tokens <= 131072; tokens *= 2) {
    plan.tokens_per_step = tokens * nodes;
    const Placement placement = plan_placement(planned_on, cluster, plan);
    const double copies = evaluate_placement(planned_on, cluster, placement, plan).pivot();
    const int replicas = replicas_of(placement);
    alone = replicas == 0 ? copies : alone;
    const double pays =
        replicas > 0 && alone > copies
            ? 3 * static_cast<double>(planned_on.expert_width) * replicas / nodes / (alone - copies)
            : 0;
    fmt::print("{:10.0f} {:9d} {:9.3f} {:9.0f}\n", tokens, replicas, copies, pays);
  }
}

RoutingTrace large_trace(int layers, std::int64_t tokens, std::uint64_t seed) {
  return make_synthetic_trace({.layers = layers,
                               .experts = 256,
                               .choices = 8,
                               .tokens = tokens,
                               .cluster = 16,
                               .strength = 0.6,
                               .skew = 0.3},
                              seed);
}

/// Of the processor, which others may share: what the work takes on a core of its own.
template <class Work>
double seconds_of(const Work& work) {
  const std::clock_t start = std::clock();
  work();
  return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

/// How long the largest models take on one core, and what ten times as long would find.
void time_large(const Options& options) {
  const Cluster cluster = uniform_cluster(64, 8);
  const RoutingTrace trace = large_trace(options.layers, 16384, 1);
  const RoutingTrace other = large_trace(1, 16384, 2);
  const auto copies = [&](const Placement& placement, const RoutingTrace& of) {
    return count_traffic(layers_of(of)[0], 0, placement, cluster.topology,
                         {.rule = PivotRule::oracle})
        .copies_per_token();
  };
  const Placement linear = Placement::linear(placement_shape(trace, 512), 512);
  fmt::print("{} layers of 256 + 256 experts, top-8, 16,384 tokens a layer, 64 nodes of 8 ranks\n",
             options.layers);
  fmt::print("linear: {:.3f} copies per token in the first layer\n", copies(linear, trace));
  for (const double times : {1.0, 10.0}) {
    PlanOptions plan = options.plan;
    plan.time_budget_s *= times;
    Placement placement = linear;
    const double took = seconds_of([&] { placement = plan_placement(trace, cluster, plan); });
    fmt::print("budget {:.2f} s: took {:.2f} s, {:.3f} copies, {:.3f} of other tokens\n",
               plan.time_budget_s, took, copies(placement, trace), copies(placement, other));
  }
}

/// Balance only, of a model with one sub-layer.
void time_balance() {
  const Cluster cluster = uniform_cluster(64, 8);
  const RoutingTrace trace = make_synthetic_trace(
      {.layers = 60, .groups = 1, .experts = 256, .choices = 8, .tokens = 16384, .skew = 0.5}, 1);
  double least = 1e9;
  for (int i = 0; i < 5; ++i) {
    least = std::min(least, seconds_of([&] { balanced_placement(trace, cluster, {.slots = 1}); }));
  }
  fmt::print("balance only, 60 layers of 256 experts on 512 ranks: {:.1f} ms\n", 1e3 * least);
}

/// A re-plan of one small layer, some of whose experts have changed topics.
void time_replan() {
  const Cluster small = uniform_cluster(8, 1);
  const RoutingTrace before =
      make_synthetic_trace({.experts = 32, .tokens = 16384, .cluster = 4, .skew = 0.3}, 1);
  const RoutingTrace after = make_synthetic_trace(
      {.experts = 32, .tokens = 16384, .cluster = 4, .skew = 0.3, .drift = 0.5}, 2);
  const Placement running = plan_placement(before, small, {});
  const PlanOptions warm{.time_budget_s = 0.002, .running = &running};
  Placement placement = running;
  double least = 1e9;
  for (int i = 0; i < 5; ++i) {
    least = std::min(least, seconds_of([&] { placement = plan_placement(after, small, warm); }));
  }
  const auto copies = [&](const Placement& of) {
    return evaluate_placement(after, small, of, {}).oracle;
  };
  fmt::print(
      "re-plan of one layer of 32 + 32 experts on 8 nodes: {:.2f} ms; copies per token {:.3f} "
      "before, {:.3f} after, {:.3f} if planned at leisure\n",
      1e3 * least, copies(running), copies(placement), copies(plan_placement(after, small, {})));
}

int run(int argc, char** argv) {
  Options options;
  CLI::App app{"What planning saves on a trace that was not planned on."};
  app.add_option("plan-trace", options.plan_trace,
                 "Routing trace to plan on; without, a large synthetic one is planned and timed");
  app.add_option("trace", options.trace, "Routing trace to evaluate on");
  app.add_flag("--crossover", options.crossover,
               "With traces: from how many tokens a step replicas pay");
  app.add_option("--timed", options.timed, "Without traces: what to time")
      ->check(CLI::IsMember({"balance", "replan", "large"}));
  app.add_option("--layers", options.layers, "Of the large trace")->capture_default_str();
  app.add_option("--nodes", options.nodes, "Numbers of nodes, of one rank each")
      ->capture_default_str();
  app.add_option("--time-budget", options.plan.time_budget_s, "Seconds")->capture_default_str();
  app.add_option("--redundancy", options.plan.redundancy, "More slots, as a share of the experts")
      ->capture_default_str();
  app.add_option("--tokens-per-step", options.plan.tokens_per_step,
                 "Of training, which replicas must pay in")
      ->capture_default_str();
  app.add_option("--seed", options.plan.seed, "Of the search")->capture_default_str();
  app.add_option("--load-cap", options.plan.load_cap, "Over the mean")->capture_default_str();
  std::string objective = "auto";
  app.add_option("--objective", objective, "As of 'cartesian plan'")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  options.plan.objective = objective_named(objective);
  if (options.plan_trace.empty()) {
    for (const std::string& what : options.timed) {
      what == "balance" ? time_balance() : what == "replan" ? time_replan() : time_large(options);
    }
    return 0;
  }
  const auto files = make_posix_file_system();
  const RoutingTrace planned_on = load_routing_trace(*files, options.plan_trace);
  const RoutingTrace trace = load_routing_trace(*files, options.trace);
  fmt::print(
      "planned on {} tokens, evaluated on {}; copies per token and layer, forward; one thread\n",
      planned_on.tokens, trace.tokens);
  for (const int nodes : options.nodes) {
    options.crossover ? find_crossover(planned_on, nodes, options)
                      : compare(planned_on, trace, nodes, options);
  }
  return 0;
}

}  // namespace
}  // namespace cartesian::bench

int main(int argc, char** argv) { return cartesian::bench::run(argc, argv); }
