#include "base/itinerary.h"

#include <algorithm>
#include <array>
#include <tuple>

#include "base/check.h"
#include "base/random.h"

namespace cartesian {

namespace {

/// A uniform number below `count` that depends on the token and the expert only.
std::size_t pick(std::int64_t token, int expert, std::size_t count) {
  if (count == 1) {
    return 0;
  }
  constexpr std::uint64_t kKey = 0x7265706C69636173;  // a constant: every rank must agree
  const auto words =
      philox(kKey, static_cast<std::uint64_t>(token), static_cast<std::uint64_t>(expert));
  return static_cast<std::size_t>((std::uint64_t{words[0]} * count) >> 32);
}

/// One of `replicas` that `allowed` accepts, by hash, or -1.
template <class Allowed>
int pick_replica(const TokenChoices& choices, int expert, std::span<const int> replicas,
                 Allowed allowed) {
  const auto count =
      static_cast<std::size_t>(std::count_if(replicas.begin(), replicas.end(), allowed));
  if (count == 0) {
    return -1;
  }
  std::size_t skip = pick(choices.token, expert, count);
  return *std::find_if(replicas.begin(), replicas.end(),
                       [&](int rank) { return allowed(rank) && skip-- == 0; });
}

/// The replica of an expert that is on origin, or on its node, or in one node only; else -1.
int forced_replica(const TokenChoices& choices, int expert, std::span<const int> replicas,
                   const Topology& topology) {
  if (std::binary_search(replicas.begin(), replicas.end(), choices.origin)) {
    return choices.origin;
  }
  const auto pick_in = [&](int node) {
    return pick_replica(choices, expert, replicas,
                        [&](int rank) { return topology.node(rank) == node; });
  };
  const int at_origin = pick_in(topology.node(choices.origin));
  if (at_origin >= 0) {
    return at_origin;
  }
  const int node = topology.node(replicas.front());
  const bool one_node = std::all_of(replicas.begin(), replicas.end(),
                                    [&](int rank) { return topology.node(rank) == node; });
  return one_node ? pick_in(node) : -1;
}

}  // namespace

std::string_view name_of(Flow flow) {
  switch (flow) {
    case Flow::flat:
      return "flat";
    case Flow::home:
      return "home";
    case Flow::pivot:
      return "pivot";
  }
  return "?";
}

std::optional<Flow> parse_flow(std::string_view name) {
  for (const Flow flow : {Flow::flat, Flow::home, Flow::pivot}) {
    if (name == name_of(flow)) {
      return flow;
    }
  }
  return std::nullopt;
}

void choose_replicas(const TokenChoices& choices, const Placement& placement,
                     const Topology& topology, std::span<std::int32_t> ranks) {
  check(ranks.size() == choices.experts.size(), "one rank for every choice");
  check(choices.origin >= 0 && choices.home >= 0, "a token comes from somewhere");
  constexpr std::int32_t kNone = -1;
  constexpr std::int32_t kOpen = -2;
  bool open = false;
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    const int expert = choices.experts[i];
    ranks[i] = kNone;
    if (expert >= 0) {
      const auto replicas = placement.replicas(choices.layer, choices.group, expert);
      const int forced = forced_replica(choices, expert, replicas, topology);
      ranks[i] = forced >= 0 ? forced : kOpen;
      open = open || forced < 0;
    }
  }
  if (!open) {
    return;
  }

  // An open choice may follow forced ones only, else the order of the choices would matter: its
  // rank is kept as kOpen - 1 - rank until all are chosen. (Those forced to origin's node attract
  // no one: an open choice has no replica there.)
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    if (ranks[i] != kOpen) {
      continue;
    }
    const int expert = choices.experts[i];
    const auto replicas = placement.replicas(choices.layer, choices.group, expert);
    const auto visited = [&](int rank) {
      return std::any_of(ranks.begin(), ranks.end(), [&](std::int32_t chosen) {
        return chosen >= 0 && topology.node(chosen) == topology.node(rank);
      });
    };
    int rank = pick_replica(choices, expert, replicas, visited);
    if (rank < 0) {
      rank = pick_replica(choices, expert, replicas, [&](int replica) {
        return topology.node(replica) == topology.node(choices.home);
      });
    }
    if (rank < 0) {
      rank = pick_replica(choices, expert, replicas, [](int) { return true; });
    }
    ranks[i] = kOpen - 1 - rank;
  }
  for (std::int32_t& rank : ranks) {
    rank = rank <= kOpen ? kOpen - 1 - rank : rank;
  }
}

namespace {

/// Distinct nodes of `ranks` other than `beside`.
int nodes_beside(std::span<const std::int32_t> ranks, const Topology& topology, int beside) {
  int count = 0;
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    if (ranks[i] < 0) {
      continue;
    }
    const int node = topology.node(ranks[i]);
    const bool seen =
        std::any_of(ranks.begin(), ranks.begin() + static_cast<std::ptrdiff_t>(i),
                    [&](int rank) { return rank >= 0 && topology.node(rank) == node; });
    count += !seen && node != beside ? 1 : 0;
  }
  return count;
}

/// Compares nodes as pivots of one token.
class PivotChoice {
 public:
  PivotChoice(int layer, int home, std::int64_t token, const PivotEvidence& evidence,
              const Placement& placement, const Topology& topology)
      : layer_(layer),
        home_(home),
        token_(token),
        evidence_(evidence),
        placement_(placement),
        topology_(topology) {
    check(evidence.b.size() <= kMostChoices, "a token chooses few experts");
  }

  int best() {
    consider(topology_.node(home_));
    for (const std::int32_t rank : evidence_.a_ranks) {
      if (rank >= 0) {
        consider(topology_.node(rank));
      }
    }
    return rank_;
  }

 private:
  static constexpr std::size_t kMostChoices = 256;

  struct Merit {
    double copies;  ///< less is better; the rest more
    double score;
    float gate;
    bool home;
    int lower;
    bool better_than(const Merit& other) const {
      return std::tuple(-copies, score, gate, home, lower) >
             std::tuple(-other.copies, other.score, other.gate, other.home, other.lower);
    }
  };

  void consider(int node) {
    if (best_ && node == -best_->lower) {
      return;
    }
    const int rank = node == topology_.node(home_) ? home_ : topology_.rail(node, home_);
    const Merit merit = merit_of(node, rank);
    if (!best_ || merit.better_than(*best_)) {
      best_ = merit;
      rank_ = rank;
    }
  }

  Merit merit_of(int node, int rank) {
    Merit merit{.copies = static_cast<double>(nodes_beside(evidence_.a_ranks, topology_, node)),
                .score = 0,
                .gate = 0,
                .home = node == topology_.node(home_),
                .lower = -node};
    for (std::size_t i = 0; i < evidence_.a.size(); ++i) {
      if (evidence_.a[i] < 0) {
        continue;
      }
      const auto scores = placement_.pivot_scores(layer_, evidence_.a[i]);
      merit.score += scores.empty() ? 0 : scores[static_cast<std::size_t>(node)];
      if (!evidence_.gates.empty() && topology_.node(evidence_.a_ranks[i]) == node) {
        merit.gate = std::max(merit.gate, evidence_.gates[i]);
      }
    }
    merit.copies += evidence_.b.empty() ? -merit.score : copies_of_b(rank);
    return merit;
  }

  /// From a pivot to B's nodes, and from there to home.
  double copies_of_b(int pivot) {
    const std::span<std::int32_t> ranks = std::span(b_ranks_).first(evidence_.b.size());
    choose_replicas({.layer = layer_,
                     .group = 1,
                     .origin = pivot,
                     .home = home_,
                     .token = token_,
                     .experts = evidence_.b},
                    placement_, topology_, ranks);
    if (std::all_of(ranks.begin(), ranks.end(), [](std::int32_t rank) { return rank < 0; })) {
      return pivot == home_ ? 0 : 1;  // what A made of it returns alone
    }
    return nodes_beside(ranks, topology_, topology_.node(pivot)) +
           nodes_beside(ranks, topology_, topology_.node(home_));
  }

  int layer_;
  int home_;
  std::int64_t token_;
  const PivotEvidence& evidence_;
  const Placement& placement_;
  const Topology& topology_;
  std::array<std::int32_t, kMostChoices> b_ranks_{};
  std::optional<Merit> best_;
  int rank_ = -1;
};

}  // namespace

int choose_pivot(Flow flow, int layer, int home, std::int64_t token, const PivotEvidence& evidence,
                 const Placement& placement, const Topology& topology) {
  check(evidence.a.size() == evidence.a_ranks.size() &&
            (evidence.gates.empty() || evidence.gates.size() == evidence.a.size()),
        "one rank and one gate for every choice");
  return flow == Flow::pivot ? PivotChoice(layer, home, token, evidence, placement, topology).best()
                             : home;
}

int choose_finisher(Flow flow, int home, int pivot, std::span<const std::int32_t> b_ranks,
                    const Topology& topology) {
  if (flow == Flow::flat || pivot == home) {
    return home;
  }
  int lowest = -1;
  bool at_pivot = false;
  for (const std::int32_t rank : b_ranks) {
    if (rank < 0) {
      continue;
    }
    const int node = topology.node(rank);
    if (node == topology.node(home)) {
      return home;
    }
    at_pivot = at_pivot || node == topology.node(pivot);
    lowest = lowest < 0 ? node : std::min(lowest, node);
  }
  return at_pivot || lowest < 0 ? pivot : topology.rail(lowest, home);
}

}  // namespace cartesian
