#include "tests/planner/message_simulation.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "base/index.h"

namespace cartesian::test {

namespace {

constexpr int kADispatch = 0;
constexpr int kACombine = 1;
constexpr int kBDispatch = 2;
constexpr int kBCombine = 3;

/// The ranks of `replicas` on one of `nodes`.
std::set<int> on_nodes(const std::set<int>& replicas, const std::set<int>& nodes,
                       const Topology& topology) {
  std::set<int> found;
  for (const int rank : replicas) {
    if (nodes.contains(topology.node(rank))) {
      found.insert(rank);
    }
  }
  return found;
}

std::set<int> nodes_of(const std::set<int>& ranks, const Topology& topology) {
  std::set<int> nodes;
  for (const int rank : ranks) {
    nodes.insert(topology.node(rank));
  }
  return nodes;
}

std::set<int> replicas_of(const Dispatch& dispatch, int expert, const Placement& placement) {
  const auto ranks = placement.replicas(0, dispatch.group, expert);
  return {ranks.begin(), ranks.end()};
}

/// At origin, on its node, or of an expert that one node has alone; else nothing.
std::set<int> without_alternative(const Dispatch& dispatch, const std::set<int>& replicas,
                                  const Topology& topology) {
  if (replicas.contains(dispatch.origin)) {
    return {dispatch.origin};
  }
  const std::set<int> near = on_nodes(replicas, {topology.node(dispatch.origin)}, topology);
  if (!near.empty()) {
    return near;
  }
  return nodes_of(replicas, topology).size() == 1 ? replicas : std::set<int>{};
}

int rail(int node, int home, const Topology& topology) {
  const auto of_home = topology.ranks_of_node(topology.node(home));
  const auto index = std::ranges::find(of_home, home) - of_home.begin();
  const auto ranks = topology.ranks_of_node(node);
  return ranks[as_index(index) % ranks.size()];
}

class Simulation {
 public:
  Simulation(const SimulatedToken& token, const Placement& placement, const Topology& topology,
             const ChooseReplicas& choose)
      : token_(token), placement_(placement), topology_(topology), choose_(choose) {}

  Journey run() {
    journey_.a_ranks =
        choose_({.group = 0, .origin = token_.home, .home = token_.home, .experts = token_.a});
    journey_.pivot = token_.flow == Flow::pivot ? best_pivot() : token_.home;
    journey_.b_ranks = b_ranks(journey_.pivot, token_.b);
    journey_.messages = messages(journey_.pivot, journey_.b_ranks);
    return journey_;
  }

 private:
  int node(int rank) const { return topology_.node(rank); }

  std::vector<int> b_ranks(int pivot, const std::vector<int>& experts) const {
    return choose_({.group = 1, .origin = pivot, .home = token_.home, .experts = experts});
  }

  std::vector<Message> messages(int pivot, const std::vector<int>& b) const {
    std::vector<Message> sent;
    star(kADispatch, token_.home, journey_.a_ranks, sent);
    star(kACombine, pivot, journey_.a_ranks, sent);
    star(kBDispatch, pivot, b, sent);
    star(kBCombine, token_.home, b, sent);
    if (b.empty() && pivot != token_.home) {
      sent.push_back({kBCombine, pivot, token_.home});
    }
    return sent;
  }

  /// All that goes between a rank and the experts' ranks, out in a dispatch, back in a combine.
  void star(int phase, int centre, const std::vector<int>& ranks,
            std::vector<Message>& sent) const {
    const auto send = [&](int hub, int leaf) {
      const bool out = phase == kADispatch || phase == kBDispatch;
      if (hub != leaf) {
        sent.push_back(out ? Message{phase, hub, leaf} : Message{phase, leaf, hub});
      }
    };
    if (token_.flow == Flow::flat) {
      for (const int rank : ranks) {
        send(centre, rank);
      }
      return;
    }
    std::map<int, std::set<int>> by_node;
    for (const int rank : ranks) {
      by_node[node(rank)].insert(rank);
    }
    for (const auto& [there, of_node] : by_node) {
      const int hub = there == node(centre) ? centre : rail(there, token_.home, topology_);
      if (there != node(centre)) {
        send(centre, hub);
      }
      for (const int rank : of_node) {
        send(hub, rank);
      }
    }
  }

  int copies(const std::vector<Message>& sent) const {
    return static_cast<int>(std::ranges::count_if(
        sent, [&](const Message& message) { return node(message.from) != node(message.to); }));
  }

  /// Fewest copies as far as they are known; then score, gate, home, the lower node.
  int best_pivot() const {
    std::set<int> candidates{node(token_.home)};
    for (const int rank : journey_.a_ranks) {
      candidates.insert(node(rank));
    }
    std::vector<std::tuple<double, double, double, bool, int, int>> merits;
    for (const int there : candidates) {
      const bool is_home = there == node(token_.home);
      const int rank = is_home ? token_.home : rail(there, token_.home, topology_);
      double score = 0;
      double gate = 0;
      for (std::size_t i = 0; i < token_.a.size(); ++i) {
        const auto scores = placement_.pivot_scores(0, token_.a[i]);
        score += scores.empty() ? 0 : scores[as_index(there)];
        if (node(journey_.a_ranks[i]) == there) {
          gate = std::max<double>(gate, token_.gates[i]);
        }
      }
      std::vector<Message> combine;
      star(kACombine, rank, journey_.a_ranks, combine);
      const double predicted = token_.evidence.empty()
                                   ? copies(combine) - score
                                   : copies(messages(rank, b_ranks(rank, token_.evidence)));
      merits.emplace_back(-predicted, score, gate, is_home, -there, rank);
    }
    return std::get<5>(*std::ranges::max_element(merits));
  }

  const SimulatedToken& token_;
  const Placement& placement_;
  const Topology& topology_;
  const ChooseReplicas& choose_;
  Journey journey_;
};

}  // namespace

std::vector<std::set<int>> allowed_replicas(const Dispatch& dispatch, const Placement& placement,
                                            const Topology& topology) {
  // The nodes that the token visits in any case.
  std::set<int> visited;
  for (const int expert : dispatch.experts) {
    visited.merge(
        nodes_of(without_alternative(dispatch, replicas_of(dispatch, expert, placement), topology),
                 topology));
  }
  std::vector<std::set<int>> allowed;
  for (const int expert : dispatch.experts) {
    const std::set<int> replicas = replicas_of(dispatch, expert, placement);
    std::set<int> ranks = without_alternative(dispatch, replicas, topology);
    if (ranks.empty()) {
      ranks = on_nodes(replicas, visited, topology);
    }
    if (ranks.empty()) {
      ranks = on_nodes(replicas, {topology.node(dispatch.home)}, topology);
    }
    allowed.push_back(ranks.empty() ? replicas : ranks);
  }
  return allowed;
}

Journey simulate(const SimulatedToken& token, const Placement& placement, const Topology& topology,
                 const ChooseReplicas& choose) {
  return Simulation(token, placement, topology, choose).run();
}

}  // namespace cartesian::test
