#pragma once
// A picture of a placement: for every layer which experts of A and B live together on which node,
// and how often tokens choose them together, with the experts in the order of their nodes.

#include <string>

#include "base/placement.h"
#include "base/routing_trace.h"
#include "base/topology.h"

namespace cartesian {

/// One HTML file that needs nothing else, neither files nor a network. Of models with many layers
/// every second, third, ... is shown, of layers with many experts cells are means over neighbours,
/// and of very many nodes the first, with the names of as many experts as there is room for, so
/// that it stays below 4 MB. `title` may hold any text.
std::string make_picture(const RoutingTrace& trace, const Placement& placement,
                         const Topology& topology, const std::string& title);

}  // namespace cartesian
