#include "planner/plan_report.h"

#include <algorithm>
#include <vector>

#include "planner/bounds.h"
#include "planner/gradient_rings.h"
#include "planner/parallel.h"

namespace cartesian {

namespace {

/// The costs of one layer; bytes and time in the flow that is planned for.
PlacementCosts evaluate_layer(const RoutingTrace& trace, const LayerTrace& layer, int index,
                              const Cluster& cluster, const Placement& placement,
                              const PlanOptions& options) {
  const auto count = [&](Flow flow, PivotRule rule) {
    return count_traffic(layer, index, placement, cluster.topology, {.flow = flow, .rule = rule});
  };
  PlacementCosts costs;
  costs.flat = count(Flow::flat, PivotRule::oracle).copies_per_token();
  const Traffic home = count(Flow::home, PivotRule::oracle);
  costs.home = home.copies_per_token();
  costs.oracle = count(Flow::pivot, PivotRule::oracle).copies_per_token();
  costs.gate = count(Flow::pivot, PivotRule::gate).copies_per_token();
  Traffic pivot = count(Flow::pivot, PivotRule::table);
  costs.table = pivot.copies_per_token();
  if (layer.groups.size() == 2 && best_rule(trace) == PivotRule::speculative) {
    pivot = count(Flow::pivot, PivotRule::speculative);
    costs.speculative = pivot.copies_per_token();
  }
  const Traffic& planned = options.flow == Flow::pivot ? pivot : home;
  const RowSizes sizes = row_sizes(trace);
  const double row_bytes = sizes.hidden * sizes.element_bytes;
  const double tokens = std::max(1.0, planned.tokens);
  for (const Traffic::Phase& phase : planned.phases) {
    costs.inter_bytes += phase.inter() * row_bytes / tokens;
    costs.intra_bytes += phase.intra * row_bytes / tokens;
  }
  costs.card_imbalance = card_imbalance(planned);
  costs.rank_imbalance = rank_imbalance(planned);
  costs.time = predict_step(planned, tokens_per_step(trace, options), cluster, sizes);
  return costs;
}

double bytes_of_fullest_rank(const RoutingTrace& trace, const Placement& placement) {
  const PlacementShape& shape = placement.shape();
  std::size_t most = 0;
  for (int rank = 0; rank < shape.ranks; ++rank) {
    std::size_t experts = 0;
    for (int layer = 0; layer < shape.layers; ++layer) {
      for (int group = 0; group < shape.groups; ++group) {
        experts += placement.experts_on(layer, group, rank).size();
      }
    }
    most = std::max(most, experts);
  }
  return static_cast<double>(most) * expert_bytes(trace);
}

}  // namespace

double PlacementCosts::of(Flow flow) const {
  return flow == Flow::flat ? flat : flow == Flow::home ? home : pivot();
}

PlacementCosts evaluate_placement(const RoutingTrace& trace, const Cluster& cluster,
                                  const Placement& placement, const PlanOptions& options) {
  const std::vector<LayerTrace> layers = layers_of(trace);
  std::vector<PlacementCosts> of_layers(layers.size());
  for_each_on_threads(layers.size(), options.threads, [&](std::size_t index) {
    of_layers[index] =
        evaluate_layer(trace, layers[index], static_cast<int>(index), cluster, placement, options);
  });
  PlacementCosts all;
  for (const PlacementCosts& layer : of_layers) {
    all.flat += layer.flat;
    all.home += layer.home;
    all.oracle += layer.oracle;
    all.table += layer.table;
    all.gate += layer.gate;
    if (layer.speculative) {
      all.speculative = all.speculative.value_or(0) + *layer.speculative;
    }
    all.inter_bytes += layer.inter_bytes;
    all.intra_bytes += layer.intra_bytes;
    for (std::size_t phase = 0; phase < all.card_imbalance.size(); ++phase) {
      all.card_imbalance.at(phase) =
          std::max(all.card_imbalance.at(phase), layer.card_imbalance.at(phase));
    }
    all.rank_imbalance = std::max(all.rank_imbalance, layer.rank_imbalance);
    all.time += layer.time;
  }
  const RowSizes sizes = row_sizes(trace);
  const GradientTraffic gradients = count_gradients(
      placement, cluster, 3 * sizes.hidden * sizes.expert_width * sizes.element_bytes);
  all.gradient_bytes = gradients.inter_bytes + gradients.intra_bytes;
  all.time.gradients_s = gradients.seconds;
  all.expert_bytes = bytes_of_fullest_rank(trace, placement);
  return all;
}

double least_rank_imbalance(const RoutingTrace& trace, const Cluster& cluster,
                            const PlanOptions& options) {
  const int ranks = cluster.topology.ranks();
  const int slots = slots_per_rank(placement_shape(trace, ranks), options) * ranks;
  double worst = 1;
  for (const LayerTrace& layer : layers_of(trace)) {
    worst = std::max(worst, least_imbalance(expert_loads(layer), ranks, slots));
  }
  return worst;
}

std::optional<double> least_copies(const RoutingTrace& trace, const Cluster& cluster,
                                   const PlanOptions& options) {
  if (!trace.home.empty()) {
    return std::nullopt;
  }
  const std::vector<LayerTrace> layers = layers_of(trace);
  const int slots = slots_per_rank(placement_shape(trace, cluster.topology.ranks()), options);
  int most_ranks = 0;
  for (int node = 0; node < cluster.topology.nodes(); ++node) {
    most_ranks =
        std::max(most_ranks, static_cast<int>(cluster.topology.ranks_of_node(node).size()));
  }
  std::vector<double> least(layers.size());
  for_each_on_threads(layers.size(), options.threads, [&](std::size_t index) {
    const LayerTrace& layer = layers[index];
    const CoActivation all(layer);
    const Partition::Costs costs = visit_costs(cluster.topology, options.flow, layer.groups.size());
    const auto tokens = static_cast<double>(std::max<std::int64_t>(1, layer.tokens));
    // What the costs leave out: the copy that a pivot saves of every token.
    const double saved = costs.meet * static_cast<double>(all.choosing_both()) / tokens;
    least[index] = std::max(0.0, least_cost(all, costs, slots * most_ranks) / tokens - saved);
  });
  double sum = 0;
  for (const double layer : least) {
    sum += layer;
  }
  return sum;
}

}  // namespace cartesian
