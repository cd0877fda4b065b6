#include "planner/layer_trace.h"

#include <fmt/format.h>

#include "base/error.h"

namespace cartesian {

namespace {
constexpr std::int64_t kMostChoices = 255;  // so that a byte counts them
}

std::vector<LayerTrace> layers_of(const RoutingTrace& trace) {
  std::vector<LayerTrace> layers;
  for (const RoutingTrace::SubLayer& sub_layer : trace.sub_layers) {
    if (layers.empty() || layers.back().block != sub_layer.block) {
      layers.push_back({.block = sub_layer.block,
                        .tokens = trace.tokens,
                        .experts = static_cast<int>(trace.experts),
                        .groups = {},
                        .speculative = {},
                        .home = trace.home});
    }
    if (sub_layer.choices > kMostChoices) {
      throw ConfigError(
          fmt::format("the trace has {} choices a token in block {}; at most {} can be "
                      "planned with",
                      sub_layer.choices, sub_layer.block, kMostChoices));
    }
    LayerTrace& layer = layers.back();
    if (static_cast<std::size_t>(sub_layer.group) != layer.groups.size()) {
      throw ConfigError(fmt::format("the trace has B of block {} but not A", sub_layer.block));
    }
    layer.groups.push_back({sub_layer.choices, sub_layer.ids, sub_layer.gates});
    layer.speculative = sub_layer.speculative_ids;
  }
  for (const LayerTrace& layer : layers) {
    if (layer.groups.size() != layers.front().groups.size()) {
      throw ConfigError(fmt::format("the trace has {} sub-layers in block {} but {} in block {}",
                                    layers.front().groups.size(), layers.front().block,
                                    layer.groups.size(), layer.block));
    }
  }
  return layers;
}

PlacementShape placement_shape(const RoutingTrace& trace, int ranks) {
  const std::vector<LayerTrace> layers = layers_of(trace);
  return {.layers = static_cast<int>(layers.size()),
          .groups = layers.empty() ? 0 : static_cast<int>(layers.front().groups.size()),
          .experts = static_cast<int>(trace.experts),
          .ranks = ranks};
}

}  // namespace cartesian
