#include "runtime/model/flow_choice.h"

#include "planner/synthetic_trace.h"
#include "planner/traffic.h"

namespace cartesian {

namespace {

constexpr std::int64_t kTokens = 2048;
constexpr double kPrediction = 0.85;  // of B's choices that speculation gets right
/// Evaluating B's router twice must save so much.
constexpr double kPivotPays = 0.02;

Flow cheapest_flow(const ModelConfig& model, const Placement& placement, const Topology& topology,
                   PivotRule rule) {
  if (topology.nodes() == 1 || model.sub_layers < 2) {
    return Flow::home;  // never more copies than flat
  }
  const RoutingTrace trace =
      make_synthetic_trace({.groups = static_cast<int>(model.sub_layers),
                            .experts = static_cast<int>(model.num_experts),
                            .choices = static_cast<int>(model.max_choices()),
                            .tokens = kTokens,
                            .ragged = model.routing_kind() == RoutingKind::top_p,
                            .prediction = kPrediction},
                           1);
  const std::vector<LayerTrace> layers = layers_of(trace);
  const auto copies = [&](Flow flow) {
    return count_traffic(layers.front(), 0, placement, topology, {.flow = flow, .rule = rule})
        .copies();
  };
  return copies(Flow::pivot) < (1 - kPivotPays) * copies(Flow::home) ? Flow::pivot : Flow::home;
}

}  // namespace

ExchangeOptions exchange_options(const ExchangeConfig& config, const ModelConfig& model,
                                 const Placement& placement, const Topology& topology) {
  ExchangeOptions options{.flow = Flow::home, .pivot = PivotBy::speculative};
  PivotRule rule = PivotRule::speculative;
  if (config.pivot == "table") {
    options.pivot = PivotBy::table;
    rule = PivotRule::table;
  } else if (config.pivot == "gate") {
    options.pivot = PivotBy::gate;
    rule = PivotRule::gate;
  }
  const std::optional<Flow> named = parse_flow(config.flow);
  options.flow = named ? *named : cheapest_flow(model, placement, topology, rule);
  return options;
}

}  // namespace cartesian
