#include "scheduler/stragglers.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/check.h"
#include "scheduler/load_statistics.h"

namespace cartesian {

namespace {

int nodes_of(const JobShape& shape) {
  return shape.node_of_rank.empty() ? 0 : *std::ranges::max_element(shape.node_of_rank) + 1;
}

std::vector<Straggler> slow_ranks(const StragglerEvidence& evidence,
                                  const StragglerLimits& limits) {
  const double middle = median(evidence.compute_s);
  std::vector<Straggler> found;
  for (std::size_t rank = 0; rank < evidence.compute_s.size(); ++rank) {
    const double seconds = evidence.compute_s[rank];
    if (middle > 0 && seconds > limits.rank_factor * middle) {
      found.push_back({Straggler::Kind::rank, static_cast<int>(rank), seconds / middle,
                       seconds / static_cast<double>(evidence.steps)});
    }
  }
  return found;
}

/// Means of the waits between nodes, with a part in them of `node` and without.
struct LinkWaits {
  double with = 0;
  double without = 0;
};

LinkWaits waits_of(std::size_t node, std::size_t nodes, const std::vector<double>& waits) {
  LinkWaits sums;
  int with = 0;
  int without = 0;
  for (std::size_t a = 0; a < nodes; ++a) {
    for (std::size_t b = 0; b < nodes; ++b) {
      if (a == b) {
        continue;
      }
      const bool part = a == node || b == node;
      (part ? sums.with : sums.without) += waits[a * nodes + b];
      ++(part ? with : without);
    }
  }
  return {sums.with / std::max(1, with), sums.without / std::max(1, without)};
}

std::vector<Straggler> slow_links(const JobShape& shape, const StragglerEvidence& evidence,
                                  const StragglerLimits& limits, const std::set<int>& excused) {
  const int nodes = nodes_of(shape);
  if (nodes < 3) {
    return {};
  }
  const double step_s = median(evidence.compute_s) / static_cast<double>(evidence.steps);
  const double ranks_a_node = static_cast<double>(shape.ranks) / nodes;
  std::vector<Straggler> found;
  for (int node = 0; node < nodes; ++node) {
    const auto [with, without] = waits_of(static_cast<std::size_t>(node),
                                          static_cast<std::size_t>(nodes), evidence.node_waits_s);
    // Of a rank of the node for all others, a step.
    const double waited = with * (nodes - 1) / ranks_a_node / static_cast<double>(evidence.steps);
    if (!excused.contains(node) && with > limits.link_factor * without &&
        waited > limits.least_share * (step_s + waited)) {
      found.push_back({Straggler::Kind::link, node, with / std::max(without, 1e-9), waited});
    }
  }
  return found;
}

}  // namespace

std::vector<Straggler> find_stragglers(const JobShape& shape, const StragglerEvidence& evidence,
                                       const StragglerLimits& limits) {
  const auto nodes = static_cast<std::size_t>(nodes_of(shape));
  check(evidence.compute_s.size() == static_cast<std::size_t>(shape.ranks) &&
            evidence.node_waits_s.size() == nodes * nodes,
        "evidence of stragglers has the sizes of the job");
  if (evidence.steps <= 0) {
    return {};
  }
  const auto worse = [](const Straggler& a, const Straggler& b) { return a.factor > b.factor; };
  std::vector<Straggler> found = slow_ranks(evidence, limits);
  std::ranges::stable_sort(found, worse);
  std::set<int> excused;
  for (const Straggler& rank : found) {
    excused.insert(shape.node_of_rank[static_cast<std::size_t>(rank.number)]);
  }
  std::vector<Straggler> links = slow_links(shape, evidence, limits, excused);
  std::ranges::stable_sort(links, worse);
  found.insert(found.end(), links.begin(), links.end());
  return found;
}

std::string describe(const Straggler& straggler, const JobShape& shape) {
  if (straggler.kind == Straggler::Kind::rank) {
    const auto rank = static_cast<std::size_t>(straggler.number);
    return fmt::format("rank {} ({}) computes for {:.3g} s a step, {:.1f} times the median rank",
                       straggler.number, rank < shape.hosts.size() ? shape.hosts[rank] : "?",
                       straggler.step_s, straggler.factor);
  }
  const auto first = std::ranges::find(shape.node_of_rank, straggler.number);
  const auto rank = static_cast<std::size_t>(first - shape.node_of_rank.begin());
  return fmt::format(
      "node {} ({}): its link makes a rank wait {:.3g} s a step, {:.1f} times as long as the "
      "others",
      straggler.number, rank < shape.hosts.size() ? shape.hosts[rank] : "?", straggler.step_s,
      straggler.factor);
}

}  // namespace cartesian
