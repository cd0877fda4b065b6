// The planner against peers in one run: EPLB, which evens out loads, and METIS, which cuts the
// graph of experts that are chosen together. Against each the planner may load nodes no more than
// that peer's own placement does. Planned on one trace, counted on another.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

#include "base/clock.h"
#include "base/index.h"
#include "bench/eplb_peer.h"
#include "bench/metis_peer.h"
#include "bench/peer_cases.h"
#include "bench/peer_tally.h"
#include "planner/plan.h"
#include "planner/traffic.h"

namespace cartesian::bench {
namespace {

constexpr double kRounding = 1e-9;

struct Options {
  std::string objective = "copies";
  std::vector<std::string> files;
  std::vector<int> experts{16, 32, 256};
  std::vector<int> nodes{2, 4, 8, 16, 64};
  int seeds = 1;
  bool only_files = false;
  bool check = false;
  double fewer_than_metis = 0.03;  ///< in geometric mean
  double redundancy = 0.25;
  MetisOptions metis;
  PlanOptions plan;
};

double node_imbalance(std::span<const std::vector<double>> groups, const Topology& topology) {
  std::vector<double> load(as_index(topology.nodes()));
  for (const std::vector<double>& rows : groups) {
    for (std::size_t rank = 0; rank < rows.size(); ++rank) {
      load[as_index(topology.node(static_cast<int>(rank)))] += rows[rank];
    }
  }
  const double total = std::reduce(load.begin(), load.end());
  return total > 0 ? *std::ranges::max_element(load) * topology.nodes() / total : 1;
}

Measured measure(const PeerCase& traces, const Cluster& cluster, const Placement& bare) {
  const Topology& topology = cluster.topology;
  const Placement placement =
      bare.with_pivot_scores(topology.nodes(), pivot_scores(traces.planned_on, bare, topology));
  const auto count = [&](const RoutingTrace& trace, PivotRule rule) {
    return count_traffic(layers_of(trace)[0], 0, placement, topology, {.rule = rule});
  };
  const bool predicted = !traces.held_out.sub_layers[1].speculative_ids.empty();
  const Traffic held_out =
      count(traces.held_out, predicted ? PivotRule::speculative : PivotRule::table);
  const Traffic planned_on = count(traces.planned_on, PivotRule::oracle);
  const std::span<const std::vector<double>> rows = planned_on.expert_rows;
  return {.copies = held_out.copies_per_token(),
          .oracle = count(traces.held_out, PivotRule::oracle).copies_per_token(),
          .planned_on = planned_on.copies_per_token(),
          .load = node_imbalance(rows, topology),
          .phase_load = std::max(node_imbalance(rows.first(1), topology),
                                 node_imbalance(rows.last(1), topology)),
          .held_out_load = node_imbalance(held_out.expert_rows, topology)};
}

/// EPLB on A and on B, which is how it is used: on sub-layers one by one.
Placement eplb_placement(const RoutingTrace& trace, int nodes, int replicas) {
  std::vector<std::vector<int>> ranks;
  for (const RoutingTrace::SubLayer& sub_layer : trace.sub_layers) {
    std::vector<std::int64_t> loads(as_index(trace.experts));
    for (const std::int16_t id : sub_layer.ids) {
      if (id >= 0) {
        ++loads[as_index(id)];
      }
    }
    std::ranges::move(eplb_nodes(loads, replicas, nodes), std::back_inserter(ranks));
  }
  return {placement_shape(trace, nodes), std::move(ranks)};
}

Placement metis_placement(const RoutingTrace& trace, const Cluster& cluster,
                          const MetisOptions& options) {
  const LayerTrace layer = layers_of(trace)[0];
  Partition partition(layer, visit_costs(cluster.topology, Flow::pivot, 2));
  MetisOptions given = options;
  given.slots = (partition.experts() + partition.nodes() - 1) / partition.nodes();
  cut_by_metis(partition, given);
  std::vector<std::vector<int>> ranks;
  for (const int node : partition.assignment()) {
    ranks.push_back({node});
  }
  return {placement_shape(trace, partition.nodes()), std::move(ranks)};
}

class Comparison {
 public:
  explicit Comparison(const Options& options) : options_(options) {}

  void print_header() const {
    const auto block = [](const std::string& peer) {
      return fmt::format(" | {:>8} {:>7} {:>6} {:>6} {:>5} {:>5} {:>5}", peer, "planned", "fewer",
                         "oracle", "cap", "load", "phase");
    };
    fmt::print("{:28} {:>5}{}{}{}\n", "case", "nodes", block("EPLB"), block("METIS"),
               block(fmt::format("EPLB+{:.0f}%", 100 * options_.redundancy)));
  }

  void run(const PeerCase& traces, int nodes) {
    const Cluster cluster = uniform_cluster(nodes, 1);
    const auto experts = static_cast<int>(traces.planned_on.experts);
    const std::string name = fmt::format("{}+{} {}", experts, experts, traces.name);
    fmt::print("{:28} {:5}", name, nodes);
    std::fflush(stdout);
    const std::string key = fmt::format("{}, {} nodes", name, nodes);
    const auto fight = [&](const Placement& placement, double redundancy, Tally& tally) {
      const Duel duel = duel_with(traces, cluster, placement, redundancy);
      tally.add(key, duel);
      fmt::print(" | {:8.3f} {:7.3f} {:6.2f} {:6.2f} {:5.3f} {:5.3f} {:5.3f}", duel.peer.copies,
                 duel.ours.copies, percent_fewer(duel.ours.copies, duel.peer.copies),
                 percent_fewer(duel.ours.oracle, duel.peer.oracle), duel.peer.load, duel.ours.load,
                 duel.ours.phase_load);
      std::fflush(stdout);
    };
    const auto eplb = [&](double redundancy, Tally& tally) {
      const auto replicas = static_cast<int>(std::lround(experts * (1 + redundancy)));
      const std::string why = why_not_eplb(experts, replicas, nodes);
      if (why.empty()) {
        fight(eplb_placement(traces.planned_on, nodes, replicas), redundancy, tally);
      } else {
        fmt::print(" | {:48}", why);
      }
    };
    eplb(0, eplb_);
    if (has_metis()) {
      fight(metis_placement(traces.planned_on, cluster, options_.metis), 0, metis_);
    } else {
      fmt::print(" | {:48}", "left out");
    }
    if (options_.redundancy > 0) {
      eplb(options_.redundancy, replicated_);
    }
    fmt::print("\n");
  }

  /// Whether the planner is as good as is asked for.
  bool summarise() const {
    fmt::print("\n");
    eplb_.print();
    metis_.print();
    replicated_.print();
    fmt::print("{:.1f} s of planning\n", seconds_);
    return eplb_.always_fewer() && eplb_.within_caps() && metis_.never_more() &&
           metis_.within_caps() && (!has_metis() || metis_.fewer() >= options_.fewer_than_metis);
  }

 private:
  Duel duel_with(const PeerCase& traces, const Cluster& cluster, const Placement& peer,
                 double redundancy) {
    Duel duel;
    duel.peer = measure(traces, cluster, peer);
    PlanOptions plan = options_.plan;
    plan.load_cap = duel.peer.load * (1 + kRounding);
    plan.load_margin = 0;
    plan.redundancy = redundancy;
    plan.tokens_per_step = 1e12;  // replicas cost nothing: EPLB does not ask what they cost
    const SteadyClock clock;
    const double start = clock.now().count();
    const Placement placement = plan_placement(traces.planned_on, cluster, plan);
    seconds_ += clock.now().count() - start;
    duel.ours = measure(traces, cluster, placement.without_pivot_scores());
    return duel;
  }

  const Options& options_;
  Tally eplb_{"EPLB"};
  Tally metis_{"METIS"};
  Tally replicated_{"EPLB with replicas"};
  double seconds_ = 0;
};

void add_options(CLI::App& app, Options& options) {
  app.add_option("traces", options.files,
                 "Pairs of routing traces: one to plan on, one to count on");
  app.add_option("--experts", options.experts, "Of each sub-layer of the synthetic traces")
      ->capture_default_str();
  app.add_option("--nodes", options.nodes, "Numbers of nodes, of one rank each")
      ->capture_default_str();
  app.add_option("--seeds", options.seeds, "Synthetic traces of each structure")
      ->capture_default_str();
  app.add_flag("--only-files", options.only_files, "No synthetic traces");
  app.add_option("--time-budget", options.plan.time_budget_s, "Seconds for each plan")
      ->capture_default_str();
  app.add_option("--objective", options.objective,
                 "As of 'cartesian plan'; METIS, and what is compared, know copies alone")
      ->capture_default_str();
  app.add_option("--redundancy", options.redundancy,
                 "More slots, as a share of the experts, in the comparison with replicas; 0: none")
      ->capture_default_str();
  app.add_option("--metis-tries", options.metis.tries, "Seeds of each of METIS's ways")
      ->capture_default_str();
  app.add_option("--metis-between", options.metis.between,
                 "Weights of its edges between A and B that are tried, over those within")
      ->capture_default_str();
  app.add_flag("--check", options.check,
               "Fail unless the planner needs fewer copies than EPLB everywhere, nowhere more than "
               "METIS, and 3% fewer in geometric mean");
}

int run(int argc, char** argv) {
  Options options;
  CLI::App app{"The planner against EPLB and METIS, each at the peer's own load."};
  add_options(app, options);
  CLI11_PARSE(app, argc, argv);
  options.plan.objective = objective_named(options.objective);
  if (options.files.size() % 2 != 0) {
    fmt::print(stderr, "traces come in pairs: one to plan on, one to count on\n");
    return 2;
  }
  if (!has_metis()) {
    fmt::print("METIS is left out: it was not found when this was built\n");
  }
  fmt::print(
      "copies per token in the pivot flow on a trace that was not planned on, by predicted pivots; "
      "percent fewer by them, and by B's true choices (oracle)\n"
      "cap: the peer's most loaded node over the mean on the trace that was planned on; load: "
      "the plan's; phase: the plan's of A or B alone; {} s a plan, one thread\n",
      options.plan.time_budget_s);
  Comparison comparison(options);
  comparison.print_header();
  const auto compare = [&](const std::vector<PeerCase>& cases) {
    for (const int nodes : options.nodes) {
      for (const PeerCase& traces : cases) {
        if (traces.planned_on.experts >= nodes) {  // two of A's and B's for every node
          comparison.run(traces, nodes);
        }
      }
    }
  };
  for (std::size_t i = 0; i < options.files.size(); i += 2) {
    compare(file_cases(options.files[i], options.files[i + 1]));
  }
  for (const int experts : options.only_files ? std::vector<int>{} : options.experts) {
    compare(synthetic_cases(experts, options.seeds));
  }
  const bool good = comparison.summarise();
  return good || !options.check ? 0 : 1;
}

}  // namespace
}  // namespace cartesian::bench

int main(int argc, char** argv) { return cartesian::bench::run(argc, argv); }
