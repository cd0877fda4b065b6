#include "planner/home_costs.h"

#include <algorithm>

#include "base/check.h"
#include "base/index.h"
#include "planner/layer_trace.h"
#include "planner/parallel.h"

namespace cartesian {

namespace {

constexpr std::int64_t kTokensAtOnce = 1024;

/// Adds those of one layer, for tokens [begin, end).
void add_copies(TokenRouter router, const Topology& topology, std::int64_t begin, std::int64_t end,
                std::span<float> copies) {
  const auto nodes = as_index(topology.nodes());
  for (std::int64_t token = begin; token < end; ++token) {
    const std::span<float> of_token = copies.subspan(as_index(token) * nodes, nodes);
    for (std::size_t node = 0; node < nodes; ++node) {
      const auto ranks = topology.ranks_of_node(static_cast<int>(node));
      const TokenRoute route = router.route(token, ranks[as_index(token) % ranks.size()]);
      for_each_message(router.flow(), route, topology,
                       [&](TravelPhase /*phase*/, int from, int to) {
                         of_token[node] += topology.node(from) != topology.node(to) ? 1 : 0;
                       });
    }
  }
}

}  // namespace

HomeCosts::HomeCosts(const RoutingTrace& trace, const Placement& placement,
                     const Topology& topology, Flow flow, PivotRule rule, int threads)
    : tokens_(trace.tokens),
      nodes_(topology.nodes()),
      copies_(as_index(trace.tokens) * as_index(topology.nodes())) {
  for (int node = 0; node < nodes_; ++node) {
    share_.push_back(static_cast<double>(topology.ranks_of_node(node).size()) / topology.ranks());
  }
  const bool by_gate = rule == PivotRule::gate && placement.score_nodes() > 0;
  const Placement used = by_gate ? placement.without_pivot_scores() : placement;
  const std::vector<LayerTrace> layers = layers_of(trace);
  const std::int64_t pieces = (tokens_ + kTokensAtOnce - 1) / kTokensAtOnce;
  for_each_on_threads(as_index(pieces), threads, [&](std::size_t piece) {
    const std::int64_t begin = static_cast<std::int64_t>(piece) * kTokensAtOnce;
    for (std::size_t i = 0; i < layers.size(); ++i) {
      add_copies(TokenRouter(layers[i], static_cast<int>(i), used, topology, flow, rule), topology,
                 begin, std::min(begin + kTokensAtOnce, tokens_), copies_);
    }
  });
}

std::span<const float> HomeCosts::of(std::int64_t token) const {
  check(token >= 0 && token < tokens_, "token out of range");
  return std::span(copies_).subspan(as_index(token) * as_index(nodes_), as_index(nodes_));
}

void HomeCosts::savings(std::int64_t token, std::span<double> of_nodes) const {
  check(of_nodes.size() == as_index(nodes_), "a saving for every node");
  const std::span<const float> copies = of(token);
  const double at_mean = mean(token);
  for (std::size_t node = 0; node < of_nodes.size(); ++node) {
    of_nodes[node] = at_mean - copies[node];
  }
}

double HomeCosts::uniform() const {
  double sum = 0;
  for (std::int64_t token = 0; token < tokens_; ++token) {
    sum += mean(token);
  }
  return tokens_ > 0 ? sum / static_cast<double>(tokens_) : 0;
}

double HomeCosts::mean(std::int64_t token) const {
  const std::span<const float> copies = of(token);
  double sum = 0;
  for (std::size_t node = 0; node < copies.size(); ++node) {
    sum += share_[node] * copies[node];
  }
  return sum;
}

}  // namespace cartesian
