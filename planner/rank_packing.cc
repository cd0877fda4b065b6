#include "planner/rank_packing.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"

namespace cartesian {

namespace {

/// The swap, with an item of a rank that is less loaded or a free slot there, after which the
/// larger of the two loads is smallest. False if none is smaller than `most`'s load.
bool relieve(std::span<const std::int64_t> loads, int slots, std::vector<int>& rank_of,
             std::vector<std::int64_t>& rank_load, std::vector<int>& sizes) {
  const auto most = std::ranges::max_element(rank_load) - rank_load.begin();
  std::int64_t best = rank_load[static_cast<std::size_t>(most)];
  std::size_t given = loads.size();
  std::size_t taken = loads.size();
  int to = -1;
  for (std::size_t i = 0; i < loads.size(); ++i) {
    if (rank_of[i] != most) {
      continue;
    }
    const auto consider = [&](int rank, std::size_t back, std::int64_t back_load) {
      const std::int64_t more = loads[i] - back_load;
      const std::int64_t larger = std::max(rank_load[static_cast<std::size_t>(most)] - more,
                                           rank_load[static_cast<std::size_t>(rank)] + more);
      if (larger < best) {
        best = larger;
        given = i;
        taken = back;
        to = rank;
      }
    };
    for (std::size_t j = 0; j < loads.size(); ++j) {
      if (rank_of[j] != most) {
        consider(rank_of[j], j, loads[j]);
      }
    }
    for (std::size_t rank = 0; rank < sizes.size(); ++rank) {
      if (static_cast<std::ptrdiff_t>(rank) != most && sizes[rank] < slots) {
        consider(static_cast<int>(rank), loads.size(), 0);
      }
    }
  }
  if (to < 0) {
    return false;
  }
  const auto put = [&](std::size_t item, int rank) {
    rank_load[static_cast<std::size_t>(rank_of[item])] -= loads[item];
    --sizes[static_cast<std::size_t>(rank_of[item])];
    rank_of[item] = rank;
    rank_load[static_cast<std::size_t>(rank)] += loads[item];
    ++sizes[static_cast<std::size_t>(rank)];
  };
  put(given, to);
  if (taken < loads.size()) {
    put(taken, static_cast<int>(most));
  }
  return true;
}

}  // namespace

std::vector<int> pack_ranks(std::span<const std::int64_t> loads, int ranks, int slots) {
  check(loads.size() <= static_cast<std::size_t>(ranks) * static_cast<std::size_t>(slots),
        "the experts of a node fit its slots");
  std::vector<std::size_t> order(loads.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, std::greater<>(), [&](std::size_t i) { return loads[i]; });
  std::vector<int> rank_of(loads.size());
  std::vector<std::int64_t> rank_load(static_cast<std::size_t>(ranks));
  std::vector<int> sizes(static_cast<std::size_t>(ranks));
  for (const std::size_t item : order) {
    std::size_t best = rank_load.size();
    for (std::size_t rank = 0; rank < rank_load.size(); ++rank) {
      if (sizes[rank] < slots && (best == rank_load.size() || rank_load[rank] < rank_load[best])) {
        best = rank;
      }
    }
    rank_of[item] = static_cast<int>(best);
    rank_load[best] += loads[item];
    ++sizes[best];
  }
  while (relieve(loads, slots, rank_of, rank_load, sizes)) {
  }
  return rank_of;
}

}  // namespace cartesian
