#pragma once
// A peer to measure against: the algorithm of EPLB, the expert-parallel load balancer that DeepSeek
// published (2025), for nodes of one GPU each. It knows the experts' loads only, and each sub-layer
// by itself. Shares no code with planner/.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace cartesian::bench {

/// Why it takes no such problem: it wants every GPU to have equally many replicas. Empty if it
/// does.
std::string why_not_eplb(int experts, int replicas, int nodes);

/// [experts of one sub-layer] the nodes that hold a replica, ascending. With as many replicas as
/// experts: the hierarchical policy, every expert a group of its own, which packs experts onto
/// nodes. With more, the global policy, which can put replicas of one expert on different nodes;
/// two that meet on a node are one here. REQUIRES: why_not_eplb() is empty.
std::vector<std::vector<int>> eplb_nodes(std::span<const std::int64_t> loads, int replicas,
                                         int nodes);

}  // namespace cartesian::bench
