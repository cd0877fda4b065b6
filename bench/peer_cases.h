#pragma once
// What planners are compared on: one layer's trace to plan on, and another of the same router to
// evaluate on.

#include <string>
#include <vector>

#include "base/routing_trace.h"

namespace cartesian::bench {

struct PeerCase {
  std::string name;
  RoutingTrace planned_on;  ///< one layer of A and B
  RoutingTrace held_out;
};

/// Planted structures of several sizes, strengths and skews, `seeds` of each. Tokens differ between
/// the two traces. Experts are renamed at random, those of A otherwise than those of B: in a
/// trained model names mean nothing, while the generator's give the structure away.
std::vector<PeerCase> synthetic_cases(int experts, int seeds);

/// The layers of two trace files, a case each. Throws ConfigError if they have other sub-layers
/// than A and B, or the two differ.
std::vector<PeerCase> file_cases(const std::string& planned_on, const std::string& held_out);

}  // namespace cartesian::bench
