#include "planner/replica_routes.h"

#include <algorithm>

#include "base/check.h"

namespace cartesian {

namespace {

int count_beside(NodeSet nodes, int node) { return std::popcount(nodes & ~node_bit(node)); }

/// One node of a set, evenly over tokens and experts.
NodeSet pick(NodeSet nodes, std::int64_t token, int expert) {
  const auto mixed = static_cast<std::uint64_t>(token * 2654435761 + std::int64_t{expert} * 40503);
  auto skip = static_cast<int>((mixed >> 7) % static_cast<std::uint64_t>(std::popcount(nodes)));
  while (skip-- > 0) {
    nodes &= nodes - 1;
  }
  return nodes & (~nodes + 1);
}

}  // namespace

ReplicaRoutes::ReplicaRoutes(const LayerTrace& layer, const Topology& topology,
                             const Options& options)
    : topology_(topology),
      options_(options),
      groups_(static_cast<int>(layer.groups.size())),
      guessed_(groups_ == 2 && !layer.speculative.empty()) {
  check(topology.nodes() <= kMostReplicaNodes, "replicas are searched on few nodes");
  for (int node = 0; node < topology.nodes(); ++node) {
    home_share_.push_back(static_cast<double>(topology.ranks_of_node(node).size()) /
                          topology.ranks());
  }
  const std::int64_t count = std::min(options_.sample, layer.tokens);
  const auto append = [&](std::span<const std::int16_t> ids, int group) {
    for (const std::int16_t id : ids) {
      if (id >= 0) {
        chosen_.push_back(group * layer.experts + id);
      }
    }
    first_.push_back(static_cast<int>(chosen_.size()));
  };
  first_.push_back(0);
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t token = i * layer.tokens / count;
    sampled_.push_back(token);
    if (!layer.home.empty()) {
      home_.push_back(topology.node(layer.home[as_index(token)]));
    }
    append(layer.groups[0].of(token), 0);
    append(groups_ == 2 ? layer.groups[1].of(token) : std::span<const std::int16_t>(), 1);
    const std::int64_t choices = guessed_ ? layer.groups[1].choices : 0;
    append(layer.speculative.subspan(as_index(guessed_ ? token * choices : 0), as_index(choices)),
           1);
  }
}

ReplicaRoutes::Forced ReplicaRoutes::forced_nodes(std::span<const int> experts, int origin,
                                                  std::span<const NodeSet> nodes_of) {
  Forced forced{0, false};
  for (const int expert : experts) {
    const NodeSet nodes = nodes_of[as_index(expert)];
    if ((nodes & node_bit(origin)) != 0) {
      forced.nodes |= node_bit(origin);
    } else if (std::has_single_bit(nodes)) {
      forced.nodes |= nodes;
    } else {
      forced.open = true;
    }
  }
  return forced;
}

/// The node whose replica serves a choice.
NodeSet ReplicaRoutes::serving(int i, int expert, NodeSet nodes, NodeSet forced, int origin,
                               int home) const {
  if ((nodes & node_bit(origin)) != 0) {
    return node_bit(origin);
  }
  // Nobody is drawn to origin: a choice with a replica there is served there.
  const NodeSet there = nodes & forced;
  if (there == 0 && (nodes & node_bit(home)) != 0) {
    return node_bit(home);
  }
  return pick(there != 0 ? there : nodes, sampled_[as_index(i)], expert);
}

NodeSet ReplicaRoutes::visited(int i, int of, int origin, int home,
                               std::span<const NodeSet> nodes_of) const {
  const Forced forced = forced_nodes(list(i, of), origin, nodes_of);
  NodeSet visited = forced.nodes;
  if (forced.open) {
    for (const int expert : list(i, of)) {
      const NodeSet nodes = nodes_of[as_index(expert)];
      if ((nodes & (forced.nodes | node_bit(origin))) == 0) {
        visited |= serving(i, expert, nodes, forced.nodes, origin, home);
      }
    }
  }
  return visited;
}

int ReplicaRoutes::rows(int i, int group, int node, std::span<const NodeSet> nodes_of) const {
  int rows = 0;
  for (const int expert : list(i, group)) {
    rows += (nodes_of[as_index(expert)] & node_bit(node)) == 0 ? 1 : 0;
  }
  return rows;
}

ReplicaRoutes::Route ReplicaRoutes::route(int i, int home,
                                          std::span<const NodeSet> nodes_of) const {
  const NodeSet a = visited(i, 0, home, home, nodes_of);
  if (groups_ == 1) {
    return {2 * count_beside(a, home), home, 2 * rows(i, 0, home, nodes_of)};
  }
  const auto copies = [&](int of, int pivot) {
    const NodeSet b = visited(i, of, pivot, home, nodes_of);
    const int alone = b == 0 && pivot != home ? 1 : 0;  // what A made of it returns
    return count_beside(a, home) + count_beside(a, pivot) + count_beside(b, pivot) +
           count_beside(b, home) + alone;
  };
  int pivot = home;
  if (options_.flow == Flow::pivot) {
    int least = copies(guessed_ ? 2 : 1, home);
    for (NodeSet rest = a & ~node_bit(home); rest != 0; rest &= rest - 1) {
      const int node = std::countr_zero(rest);
      const int then = copies(guessed_ ? 2 : 1, node);
      if (then < least) {
        least = then;
        pivot = node;
      }
    }
    if (!guessed_) {
      return {least, pivot,
              rows(i, 0, home, nodes_of) + rows(i, 0, pivot, nodes_of) +
                  rows(i, 1, pivot, nodes_of) + rows(i, 1, home, nodes_of)};
    }
  }
  return {copies(1, pivot), pivot,
          rows(i, 0, home, nodes_of) + rows(i, 0, pivot, nodes_of) + rows(i, 1, pivot, nodes_of) +
              rows(i, 1, home, nodes_of)};
}

}  // namespace cartesian
