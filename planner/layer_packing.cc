#include "planner/layer_packing.h"

#include <algorithm>
#include <iterator>

#include "base/index.h"
#include "planner/rank_packing.h"

namespace cartesian {

namespace {

/// [slots] ranks within the node that held them; -1: none did.
std::vector<int> held_by(const std::vector<Slot>& slots, std::span<const int> on_node,
                         const ExpertRanks& running) {
  std::vector<int> was;
  for (const Slot& slot : slots) {
    const auto here = std::ranges::find_first_of(on_node, running[as_index(slot.expert)]);
    was.push_back(here == on_node.end() ? -1 : static_cast<int>(here - on_node.begin()));
  }
  return was;
}

}  // namespace

RankLimits rank_limits(const Topology& topology, int slots, std::span<const double> shares) {
  RankLimits limits{.ranks = {}, .slots = slots, .load = 0};
  for (int node = 0; node < topology.nodes(); ++node) {
    const auto ranks = topology.ranks_of_node(node);
    limits.ranks.push_back(static_cast<int>(ranks.size()));
    if (!shares.empty()) {
      std::vector<double>& of_node = limits.shares.emplace_back();
      std::ranges::transform(ranks, std::back_inserter(of_node),
                             [&](int rank) { return shares[as_index(rank)]; });
    }
  }
  return limits;
}

std::vector<int> slots_of_nodes(const RankLimits& ranks) {
  std::vector<int> slots;
  std::ranges::transform(ranks.ranks, std::back_inserter(slots),
                         [&](int of_node) { return of_node * ranks.slots; });
  return slots;
}

std::vector<double> shares_of_nodes(const RankLimits& ranks) {
  std::vector<double> shares;
  for (std::size_t node = 0; node < ranks.shares.size(); ++node) {
    shares.push_back(ranks.share_of(node));
  }
  return shares;
}

ExpertRanks pack_layer(const NodeSlots& slots, const Topology& topology, const RankLimits& limits,
                       std::size_t experts, const ExpertRanks* running) {
  std::vector<std::size_t> replicas(experts);
  for (const std::vector<Slot>& node : slots) {
    for (const Slot& slot : node) {
      ++replicas[as_index(slot.expert)];
    }
  }
  ExpertRanks ranks(experts);
  for (std::size_t expert = 0; expert < experts; ++expert) {
    ranks[expert].reserve(replicas[expert]);
  }
  for (std::size_t node = 0; node < slots.size(); ++node) {
    const auto on_node = topology.ranks_of_node(static_cast<int>(node));
    const std::vector<int> was =
        running != nullptr ? held_by(slots[node], on_node, *running) : std::vector<int>{};
    const RankPacking packed =
        pack_ranks(slots[node], {.ranks = limits.ranks[node],
                                 .slots = limits.slots,
                                 .shares = limits.shares_on(node),
                                 .was = was,
                                 .enough = running != nullptr ? limits.load_on(node) : 0,
                                 .limit = limits.load_on(node)});
    for (std::size_t i = 0; i < slots[node].size(); ++i) {
      if (packed.rank_of[i] >= 0) {
        ranks[as_index(slots[node][i].expert)].push_back(on_node[as_index(packed.rank_of[i])]);
      }
    }
  }
  for (std::vector<int>& of_expert : ranks) {
    std::ranges::sort(of_expert);
  }
  return ranks;
}

}  // namespace cartesian
