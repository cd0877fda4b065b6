#include "runtime/cli/routing_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/error.h"

namespace cartesian {

namespace {
constexpr std::array kRules = {PivotRule::speculative, PivotRule::table, PivotRule::gate,
                               PivotRule::oracle};
}

Placement load_placement(FileSystem& files, const std::string& name, const PlacementShape& shape,
                         const Topology& topology) {
  if (name == "local") {
    return Placement::local(shape, topology);
  }
  if (name == "linear") {
    return Placement::linear(shape, shape.ranks);
  }
  Placement placement = Placement::load(files, name, shape);
  if (placement.score_nodes() > 0 && placement.score_nodes() != topology.nodes()) {
    throw ConfigError(fmt::format("{} has pivot scores of {} nodes, but the topology has {}", name,
                                  placement.score_nodes(), topology.nodes()));
  }
  return placement;
}

void add_flow_option(CLI::App& command, std::string& flow) {
  command
      .add_option("--flow", flow,
                  "How tokens travel: flat, home, pivot, or auto: pivot where there are two "
                  "sub-layers, else home")
      ->check(CLI::IsMember({"auto", "flat", "home", "pivot"}))
      ->capture_default_str();
}

Flow chosen_flow(const std::string& name, int groups) {
  if (name == "auto") {
    return groups == 2 ? Flow::pivot : Flow::home;
  }
  return *parse_flow(name);
}

PivotRule chosen_rule(const std::string& name, const RoutingTrace& trace) {
  const auto* rule =
      std::ranges::find_if(kRules, [&](PivotRule known) { return name_of(known) == name; });
  return rule != kRules.end() ? *rule : best_rule(trace);
}

}  // namespace cartesian
