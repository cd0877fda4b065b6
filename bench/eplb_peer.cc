#include "bench/eplb_peer.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "base/check.h"
#include "base/index.h"

namespace cartesian::bench {

namespace {

/// [items] packs: the heaviest first, each into the lightest pack that is not full; every pack gets
/// the same number. Packs of one item are filled in order, whatever the weights.
std::vector<int> pack_evenly(const std::vector<double>& weights, int packs) {
  const auto most = static_cast<int>(weights.size()) / packs;
  std::vector<int> order(weights.size());
  std::iota(order.begin(), order.end(), 0);
  if (most == 1) {
    return order;
  }
  std::ranges::stable_sort(order, std::greater<>(),
                           [&](int item) { return weights[as_index(item)]; });
  std::vector<double> weight(as_index(packs));
  std::vector<int> items(as_index(packs));
  std::vector<int> pack_of(weights.size());
  for (const int item : order) {
    int lightest = -1;
    for (int pack = 0; pack < packs; ++pack) {
      if (items[as_index(pack)] < most &&
          (lightest < 0 || weight[as_index(pack)] < weight[as_index(lightest)])) {
        lightest = pack;
      }
    }
    pack_of[as_index(item)] = lightest;
    weight[as_index(lightest)] += weights[as_index(item)];
    ++items[as_index(lightest)];
  }
  return pack_of;
}

/// [replicas] experts: each once, then again and again the one whose replicas have most to do.
std::vector<int> replicate(std::span<const std::int64_t> loads, int replicas) {
  std::vector<int> expert_of(loads.size());
  std::iota(expert_of.begin(), expert_of.end(), 0);
  std::vector<int> count(loads.size(), 1);
  const auto load_of_one = [&](std::size_t expert) {
    return static_cast<double>(loads[expert]) / count[expert];
  };
  while (static_cast<int>(expert_of.size()) < replicas) {
    std::size_t busiest = 0;
    for (std::size_t expert = 1; expert < loads.size(); ++expert) {
      if (load_of_one(expert) > load_of_one(busiest)) {
        busiest = expert;
      }
    }
    ++count[busiest];
    expert_of.push_back(static_cast<int>(busiest));
  }
  return expert_of;
}

}  // namespace

std::string why_not_eplb(int experts, int replicas, int nodes) {
  if (replicas < experts) {
    return fmt::format("{} replicas are fewer than {} experts", replicas, experts);
  }
  if (replicas % nodes != 0) {
    return fmt::format("{} replicas do not divide over {} nodes", replicas, nodes);
  }
  return "";
}

std::vector<std::vector<int>> eplb_nodes(std::span<const std::int64_t> loads, int replicas,
                                         int nodes) {
  const auto experts = static_cast<int>(loads.size());
  check(why_not_eplb(experts, replicas, nodes).empty(), "EPLB takes the problem");
  const std::vector<int> expert_of = replicate(loads, replicas);
  std::vector<int> count(loads.size());
  for (const int expert : expert_of) {
    ++count[as_index(expert)];
  }
  std::vector<double> weights;
  for (const int expert : expert_of) {
    weights.push_back(static_cast<double>(loads[as_index(expert)]) / count[as_index(expert)]);
  }
  const std::vector<int> node_of = pack_evenly(weights, nodes);
  std::vector<std::vector<int>> nodes_of(loads.size());
  for (std::size_t replica = 0; replica < node_of.size(); ++replica) {
    nodes_of[as_index(expert_of[replica])].push_back(node_of[replica]);
  }
  for (std::vector<int>& of_expert : nodes_of) {
    std::ranges::sort(of_expert);
    of_expert.erase(std::ranges::unique(of_expert).begin(), of_expert.end());
  }
  return nodes_of;
}

}  // namespace cartesian::bench
