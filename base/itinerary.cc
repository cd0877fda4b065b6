#include "base/itinerary.h"

#include <algorithm>

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

/// The replica of an expert that is on home, or on home's node, or in one node only; else -1.
int forced_replica(const TokenChoices& choices, int expert, std::span<const int> replicas,
                   const Topology& topology) {
  if (std::binary_search(replicas.begin(), replicas.end(), choices.home)) {
    return choices.home;
  }
  const auto pick_in = [&](int node) {
    return pick_replica(choices, expert, replicas,
                        [&](int rank) { return topology.node(rank) == node; });
  };
  const int at_home = pick_in(topology.node(choices.home));
  if (at_home >= 0) {
    return at_home;
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
  }
  return "?";
}

void choose_replicas(const TokenChoices& choices, const Placement& placement,
                     const Topology& topology, std::span<std::int32_t> ranks) {
  check(ranks.size() == choices.experts.size(), "one rank for every choice");
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
  // rank is kept as kOpen - 1 - rank until all are chosen. (Those forced to home's node attract no
  // one: an open choice has no replica there.)
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
      rank = pick_replica(choices, expert, replicas, [](int) { return true; });
    }
    ranks[i] = kOpen - 1 - rank;
  }
  for (std::int32_t& rank : ranks) {
    rank = rank <= kOpen ? kOpen - 1 - rank : rank;
  }
}

int pivot_rank(Flow flow, int home) {
  check(flow == Flow::flat, "unknown flow");
  return home;
}

int finisher_rank(Flow flow, int home) {
  check(flow == Flow::flat, "unknown flow");
  return home;
}

}  // namespace cartesian
