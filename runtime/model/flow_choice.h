#pragma once
// exchange.flow = "auto": the flow that sends fewest copies between nodes, by the planner's count
// of tokens that choose evenly.

#include "base/placement.h"
#include "base/topology.h"
#include "comm/exchange.h"
#include "runtime/config/config.h"

namespace cartesian {

/// What a configuration asks for. Deterministic: the same on every rank.
ExchangeOptions exchange_options(const ExchangeConfig& config, const ModelConfig& model,
                                 const Placement& placement, const Topology& topology);

}  // namespace cartesian
