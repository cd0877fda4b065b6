// What planning saves: copies between nodes per token of a trace that was not planned on, for
// placements planned on another, over random placements with as many slots.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <vector>

#include "base/clock.h"
#include "base/random.h"
#include "planner/plan_report.h"
#include "planner/synthetic_trace.h"

namespace cartesian::bench {
namespace {

struct Options {
  std::string plan_trace;
  std::string trace;
  std::vector<int> nodes{2, 4, 8, 16};
  int random_placements = 8;
  int layers = 60;
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

/// How long the largest models take, on one core.
void time_large(const Options& options) {
  const Cluster cluster = uniform_cluster(64, 8);
  const SteadyClock clock;
  const auto seconds = [&](const auto& work) {
    const double start = clock.now().count();
    work();
    return clock.now().count() - start;
  };
  const RoutingTrace trace = make_synthetic_trace({.layers = options.layers,
                                                   .experts = 256,
                                                   .choices = 8,
                                                   .tokens = 16384,
                                                   .cluster = 16,
                                                   .strength = 0.6,
                                                   .skew = 0.3},
                                                  1);
  PlanOptions plan = options.plan;
  Placement placement = Placement::linear(placement_shape(trace, 512), 512);
  const double linear = evaluate_placement(trace, cluster, placement, plan).oracle;
  const double took = seconds([&] { placement = plan_placement(trace, cluster, plan); });
  const PlacementCosts costs = evaluate_placement(trace, cluster, placement, plan);
  fmt::print(
      "{} layers of 256 + 256 experts, top-8, 16,384 tokens a layer, on 64 nodes of 8 ranks: "
      "{:.2f} "
      "s of {:.2f} s allowed; copies per token and layer {:.3f} (linear {:.3f}), load {:.3f}\n",
      options.layers, took, plan.time_budget_s, costs.oracle / options.layers,
      linear / options.layers, costs.rank_imbalance);
  fmt::print("balance only: {:.1f} ms\n",
             1e3 * seconds([&] { balanced_placement(trace, cluster, plan); }));
}

int run(int argc, char** argv) {
  Options options;
  CLI::App app{"What planning saves on a trace that was not planned on."};
  app.add_option("plan-trace", options.plan_trace,
                 "Routing trace to plan on; without, a large synthetic one is planned and timed");
  app.add_option("trace", options.trace, "Routing trace to evaluate on");
  app.add_option("--layers", options.layers, "Of the large trace")->capture_default_str();
  app.add_option("--nodes", options.nodes, "Numbers of nodes, of one rank each")
      ->capture_default_str();
  app.add_option("--time-budget", options.plan.time_budget_s, "Seconds")->capture_default_str();
  app.add_option("--redundancy", options.plan.redundancy, "More slots, as a share of the experts")
      ->capture_default_str();
  app.add_option("--tokens-per-step", options.plan.tokens_per_step,
                 "Of training, which replicas must pay in")
      ->capture_default_str();
  app.add_option("--load-cap", options.plan.load_cap, "Over the mean")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  if (options.plan_trace.empty()) {
    time_large(options);
    return 0;
  }
  const auto files = make_posix_file_system();
  const RoutingTrace planned_on = load_routing_trace(*files, options.plan_trace);
  const RoutingTrace trace = load_routing_trace(*files, options.trace);
  fmt::print(
      "planned on {} tokens, evaluated on {}; copies per token and layer, forward; one thread\n",
      planned_on.tokens, trace.tokens);
  for (const int nodes : options.nodes) {
    compare(planned_on, trace, nodes, options);
  }
  return 0;
}

}  // namespace
}  // namespace cartesian::bench

int main(int argc, char** argv) { return cartesian::bench::run(argc, argv); }
