#pragma once
// A timeline as a Chrome trace, which https://ui.perfetto.dev and chrome://tracing open
// (docs/formats.md).

#include <span>
#include <string>

#include "base/topology.h"
#include "planner/timeline.h"

namespace cartesian {

/// JSON: a process for every node that has spans, a thread for every resource of it that has.
std::string to_perfetto(std::span<const TimelineSpan> spans, const Topology& topology);

}  // namespace cartesian
