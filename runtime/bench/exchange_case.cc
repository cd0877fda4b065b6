#include "runtime/bench/exchange_case.h"

#include <algorithm>
#include <vector>

#include "base/index.h"
#include "base/itinerary.h"

namespace cartesian {

namespace {

/// result[i] = rows[i modulo theirs], each of `width`.
template <class T>
std::vector<T> repeated(const std::vector<T>& rows, std::int64_t width, std::int64_t count) {
  const std::int64_t size = count * width;
  std::vector<T> result;
  result.reserve(as_index(size));
  while (static_cast<std::int64_t>(result.size()) < size) {
    const auto more = std::min(size - static_cast<std::int64_t>(result.size()),
                               static_cast<std::int64_t>(rows.size()));
    result.insert(result.end(), rows.begin(), rows.begin() + more);
  }
  return result;
}

template <class T>
std::span<const T> row_of(const std::vector<T>& rows, std::int64_t width, std::int64_t token) {
  return std::span(rows).subspan(as_index(token * width), as_index(width));
}

}  // namespace

std::span<const std::int16_t> ExchangeCase::chosen(int group, std::int64_t token) const {
  return row_of(choices(group).ids, choices(group).choices, token);
}

std::span<const float> ExchangeCase::gates(int group, std::int64_t token) const {
  return row_of(choices(group).gates, choices(group).choices, token);
}

double ExchangeCase::slope(int group, std::int64_t token) const {
  const auto experts = chosen(group, token);
  const auto weights = gates(group, token);
  double sum = 1;
  for (std::size_t j = 0; j < experts.size(); ++j) {
    sum += experts[j] < 0 ? 0.0 : double{weights[j]} * double{expert_slope(group, experts[j])};
  }
  return sum;
}

RoutingTrace routing_of_layer(const RoutingTrace& trace, int layer, std::int64_t tokens,
                              int ranks) {
  const std::vector<LayerTrace> layers = layers_of(trace);
  const std::size_t groups = layers[as_index(layer)].groups.size();
  RoutingTrace routing;
  routing.tokens = tokens * ranks;
  routing.experts = trace.experts;
  for (std::size_t g = 0; g < groups; ++g) {
    const RoutingTrace::SubLayer& from = trace.sub_layers[as_index(layer) * groups + g];
    routing.sub_layers.push_back(
        {.block = from.block,
         .group = from.group,
         .choices = from.choices,
         .ids = repeated(from.ids, from.choices, routing.tokens),
         .gates = repeated(from.gates, from.choices, routing.tokens),
         .speculative_ids = from.speculative_ids.empty()
                                ? std::vector<std::int16_t>()
                                : repeated(from.speculative_ids, from.choices, routing.tokens)});
  }
  for (std::int64_t token = 0; token < routing.tokens; ++token) {
    routing.home.push_back(static_cast<std::int32_t>(token / tokens));
  }
  return routing;
}

std::array<std::int64_t, 2> rows_needed(const ExchangeCase& measured) {
  std::array<std::int64_t, 2> rows{};
  const std::vector<LayerTrace> layers = layers_of(measured.routing);
  TokenRouter router(layers.front(), measured.layer, measured.placement, measured.topology,
                     Flow::home, measured.rule);
  std::vector<std::int32_t> ranks;
  for (std::int64_t token = 0; token < measured.all_tokens(); ++token) {
    const TokenRoute route = router.route(token, measured.routing.home[as_index(token)]);
    for (int group = 0; group < measured.groups(); ++group) {
      const auto all = group == 0 ? route.a_ranks : route.b_ranks;
      ranks.assign(all.begin(), all.end());
      std::ranges::sort(ranks);
      const auto end = std::unique(ranks.begin(), ranks.end());
      rows.at(as_index(group)) +=
          std::count_if(ranks.begin(), end, [](std::int32_t rank) { return rank >= 0; });
    }
  }
  return rows;
}

}  // namespace cartesian
