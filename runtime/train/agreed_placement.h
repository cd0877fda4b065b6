#pragma once
// The placement that a run begins with.

#include <string>

#include "base/placement.h"
#include "runtime/config/config.h"
#include "runtime/job.h"

namespace cartesian {

struct AgreedPlacement {
  Placement start;
  int slots;         ///< of a rank in a layer: what it has at most, there or by parallel.placement
  std::string note;  ///< for people: whence it is, where that is not plain; may be empty
};

/// What parallel.placement asks for, once it is certain that its memory will do; or if a run whose
/// experts have moved is resumed from a checkpoint, the placement that it left in its directory,
/// unless that is of other ranks, or has pivot scores of other nodes. Throws, on every rank alike,
/// as make_placement() does, or ConfigError if ranks see different files. Collective.
AgreedPlacement agreed_placement(Job& job, const Config& config, const Topology& topology,
                                 bool resume);

}  // namespace cartesian
