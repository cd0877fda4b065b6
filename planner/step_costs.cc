#include "planner/step_costs.h"

#include <algorithm>

#include "base/index.h"
#include "planner/gradient_rings.h"
#include "planner/node_traffic.h"
#include "planner/plan.h"

namespace cartesian {

namespace {

constexpr std::int64_t kFewestTokens = 512;
constexpr std::int64_t kWorkOfReplicas = 8;  // over that of single ones

/// What counting the messages of a token takes.
std::int64_t work_of_token(const LayerTrace& layer, bool replicas) {
  std::int64_t choices = 0;
  for (const LayerTrace::Group& group : layer.groups) {
    choices += group.choices;
  }
  return std::max<std::int64_t>(1, choices / 2) * (replicas ? kWorkOfReplicas : 1);
}

}  // namespace

StepCosts::StepCosts(const LayerTrace& layer, const Cluster& cluster, const Options& options)
    : cluster_(cluster),
      options_(options),
      tokens_(layer,
              std::max(kFewestTokens, options.work / work_of_token(layer, options.replicas))),
      whole_(tokens_.layer().tokens == layer.tokens) {
  if (options_.flow == Flow::flat || layer.groups.size() == 1) {
    options_.flow = Flow::home;
  }
}

double StepCosts::seconds(const ExpertRanks& ranks, bool scored) const {
  const LayerTrace& layer = tokens_.layer();
  const Topology& topology = cluster_.topology;
  const bool scores_count = scored && options_.flow == Flow::pivot;
  const bool single =
      topology.nodes() <= kMostTrafficNodes &&
      std::ranges::all_of(ranks, [](const std::vector<int>& held) { return held.size() == 1; });
  const TrafficOptions counted{
      .flow = options_.flow,
      .rule = layer.speculative.empty() ? PivotRule::table : PivotRule::speculative};
  Placement placement({.layers = 1,
                       .groups = static_cast<int>(layer.groups.size()),
                       .experts = layer.experts,
                       .ranks = topology.ranks()},
                      ranks);
  std::vector<float> scores;
  if (scores_count) {
    scores = pivot_scores(layer, 0, placement, topology);
  }
  if (single) {
    std::vector<int> rank_of;
    for (const std::vector<int>& held : ranks) {
      rank_of.push_back(held[0]);
    }
    return predict_step(
               count_node_traffic(layer, {.ranks = rank_of, .scores = scores}, topology, counted),
               options_.tokens, cluster_, options_.sizes)
        .total();
  }
  const RowSizes& sizes = options_.sizes;
  const double gradients =
      count_gradients(placement, cluster_,
                      3 * sizes.hidden * sizes.expert_width * sizes.element_bytes)
          .seconds;
  if (scores_count) {
    placement = placement.with_pivot_scores(topology.nodes(), std::move(scores));
  }
  return gradients + predict_step(count_traffic(layer, 0, placement, topology, counted),
                                  options_.tokens, cluster_, sizes)
                         .total();
}

}  // namespace cartesian
