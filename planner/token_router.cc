#include "planner/token_router.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "base/error.h"
#include "base/index.h"

namespace cartesian {

std::string_view name_of(PivotRule rule) {
  switch (rule) {
    case PivotRule::oracle:
      return "oracle";
    case PivotRule::speculative:
      return "speculative";
    case PivotRule::table:
      return "table";
    case PivotRule::gate:
      return "gate";
  }
  return "?";
}

PivotRule best_rule(const RoutingTrace& trace) {
  const bool predicted =
      std::ranges::all_of(trace.sub_layers, [](const RoutingTrace::SubLayer& sub_layer) {
        return sub_layer.group == 0 || !sub_layer.speculative_ids.empty();
      });
  return predicted ? PivotRule::speculative : PivotRule::table;
}

TokenRouter::TokenRouter(const LayerTrace& layer, int index, const Placement& placement,
                         const Topology& topology, Flow flow, PivotRule rule)
    : layer_(layer),
      index_(index),
      placement_(placement),
      topology_(topology),
      flow_(layer.groups.size() == 2 || flow == Flow::flat ? flow : Flow::home),
      rule_(rule) {
  check(placement.shape().ranks == topology.ranks() &&
            placement.shape().groups == static_cast<int>(layer.groups.size()),
        "the placement is of this trace and topology");
  if (flow_ == Flow::pivot && rule == PivotRule::speculative && layer.speculative.empty() &&
      layer.tokens > 0) {
    throw ConfigError(
        fmt::format("the trace has no speculative choices for block {}: choose "
                    "pivots by table or gate",
                    layer.block));
  }
}

TokenRoute TokenRouter::route(std::int64_t token, int home) {
  if (token != token_) {
    read(token);
  }
  choose(0, home, home, a_, a_ranks_);
  const int pivot =
      choose_pivot(flow_, index_, home, token,
                   {.a = a_,
                    .gates = layer_.groups[0].gates.subspan(as_index(token) * a_.size(), a_.size()),
                    .a_ranks = a_ranks_,
                    .b = evidence_},
                   placement_, topology_);
  choose(1, pivot, home, b_, b_ranks_);
  return {.home = home, .pivot = pivot, .a_ranks = a_ranks_, .b_ranks = b_ranks_};
}

void TokenRouter::read(std::int64_t token) {
  const auto widen = [](std::span<const std::int16_t> from, std::vector<std::int32_t>& to) {
    to.assign(from.begin(), from.end());
  };
  token_ = token;
  widen(layer_.groups[0].of(token), a_);
  if (layer_.groups.size() == 2) {
    widen(layer_.groups[1].of(token), b_);
  }
  evidence_.clear();
  if (flow_ == Flow::pivot && rule_ == PivotRule::oracle) {
    evidence_ = b_;
  } else if (flow_ == Flow::pivot && rule_ == PivotRule::speculative) {
    const auto k = as_index(layer_.groups[1].choices);
    widen(layer_.speculative.subspan(as_index(token) * k, k), evidence_);
  }
}

void TokenRouter::choose(int group, int origin, int home, std::span<const std::int32_t> experts,
                         std::vector<std::int32_t>& ranks) const {
  ranks.resize(experts.size());
  if (!experts.empty()) {
    choose_replicas({.layer = index_,
                     .group = group,
                     .origin = origin,
                     .home = home,
                     .token = token_,
                     .experts = experts},
                    placement_, topology_, ranks);
  }
}

}  // namespace cartesian
