#pragma once
// What commands about a trace over a cluster share: the placement, flow and pivot rule that options
// name.

#include <CLI/CLI.hpp>
#include <string>

#include "base/file_system.h"
#include "base/itinerary.h"
#include "base/routing_trace.h"
#include "planner/token_router.h"

namespace cartesian {

/// "linear", "local", or a placement file of this shape. Throws FileError, FormatError or
/// ConfigError, naming the file.
Placement load_placement(FileSystem& files, const std::string& name, const PlacementShape& shape,
                         const Topology& topology);

/// --flow of those who count with a flow, for chosen_flow().
void add_flow_option(CLI::App& command, std::string& flow);

/// `name`, or of "auto" pivot where there are two sub-layers, else home. REQUIRES: a flow or
/// "auto".
Flow chosen_flow(const std::string& name, int groups);

/// The rule of this name, or else best_rule().
PivotRule chosen_rule(const std::string& name, const RoutingTrace& trace);

}  // namespace cartesian
