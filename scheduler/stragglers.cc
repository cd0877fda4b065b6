#include "scheduler/stragglers.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/check.h"
#include "scheduler/load_statistics.h"

namespace cartesian {

namespace {

/// The median computing of the ranks that have at least `tokens`.
double reference(const StragglerEvidence& evidence, double tokens) {
  std::vector<double> peers;
  for (std::size_t rank = 0; rank < evidence.compute_s.size(); ++rank) {
    if (evidence.tokens[rank] >= tokens) {
      peers.push_back(evidence.compute_s[rank]);
    }
  }
  return median(std::move(peers));
}

double least_cost(const StragglerEvidence& evidence, const StragglerLimits& limits) {
  return std::max(limits.least_s, limits.least_share * evidence.step_s);
}

std::vector<Straggler> slow_ranks(const StragglerEvidence& evidence,
                                  const StragglerLimits& limits) {
  std::vector<Straggler> found;
  for (const double tokens : std::set(evidence.tokens.begin(), evidence.tokens.end())) {
    const double middle = reference(evidence, tokens);
    for (std::size_t rank = 0; rank < evidence.compute_s.size(); ++rank) {
      const double seconds = evidence.compute_s[rank];
      if (evidence.tokens[rank] == tokens && middle > 0 && seconds > limits.rank_factor * middle &&
          seconds - middle > least_cost(evidence, limits)) {
        found.push_back({Straggler::Kind::rank, static_cast<int>(rank), seconds / middle, seconds});
      }
    }
  }
  return found;
}

std::vector<Straggler> slow_links(const JobShape& shape, const StragglerEvidence& evidence,
                                  const StragglerLimits& limits, const std::set<int>& excused) {
  std::vector<Straggler> found;
  if (evidence.nodes.size() < 3) {
    return found;
  }
  for (std::size_t node = 0; node < evidence.nodes.size(); ++node) {
    const NodeWaits& waits = evidence.nodes[node];
    const double with = std::min(waits.of_it, waits.for_it);
    const double factor = with / std::max(waits.elsewhere, 1e-9);
    const double ranks =
        static_cast<double>(std::ranges::count(shape.node_of_rank, static_cast<int>(node)));
    const double waited = waits.for_it * ranks;
    if (!excused.contains(static_cast<int>(node)) && factor > limits.link_factor &&
        waited * (1 - 1 / factor) > least_cost(evidence, limits)) {
      found.push_back({Straggler::Kind::link, static_cast<int>(node), factor, waited});
    }
  }
  return found;
}

bool same(const Straggler& a, const Straggler& b) {
  return a.kind == b.kind && a.number == b.number;
}

bool contains(const std::vector<Straggler>& list, const Straggler& wanted) {
  return std::ranges::any_of(list, [&](const Straggler& one) { return same(one, wanted); });
}

/// "rank 3 (host1)" or "node 1 (host1)".
std::string name_of(const Straggler& straggler, const JobShape& shape) {
  const bool is_rank = straggler.kind == Straggler::Kind::rank;
  const auto rank =
      static_cast<std::size_t>(is_rank ? straggler.number
                                       : std::ranges::find(shape.node_of_rank, straggler.number) -
                                             shape.node_of_rank.begin());
  return fmt::format("{} {} ({})", is_rank ? "rank" : "node", straggler.number,
                     rank < shape.hosts.size() ? shape.hosts[rank] : "?");
}

}  // namespace

std::vector<Straggler> find_stragglers(const JobShape& shape, const StragglerEvidence& evidence,
                                       const StragglerLimits& limits) {
  const auto ranks = static_cast<std::size_t>(shape.ranks);
  const auto last = std::ranges::max_element(shape.node_of_rank);
  check(evidence.compute_s.size() == ranks && evidence.tokens.size() == ranks &&
            evidence.nodes.size() == static_cast<std::size_t>(*last) + 1,
        "evidence of stragglers has the sizes of the job");
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
    return fmt::format(
        "{} computes for {:.3g} s a step, experts not counted: {:.1f} times the median rank",
        name_of(straggler, shape), straggler.step_s, straggler.factor);
  }
  return fmt::format(
      "{}: others wait {:.3g} s a step for its link, at whose ends ranks wait {:.1f} times as long "
      "as elsewhere",
      name_of(straggler, shape), straggler.step_s, straggler.factor);
}

std::vector<std::string> straggler_news(const std::vector<Straggler>& before,
                                        const std::vector<Straggler>& now, const JobShape& shape,
                                        bool blind) {
  std::vector<std::string> sentences;
  for (const Straggler& one : now) {
    if (!contains(before, one)) {
      sentences.push_back("straggler: " + describe(one, shape));
    }
  }
  for (const Straggler& one : before) {
    if (!contains(now, one)) {
      sentences.push_back(fmt::format("straggler: {} is {}", name_of(one, shape),
                                      blind ? "forgotten: steps lack the reports of some ranks"
                                            : "as fast as the others again"));
    }
  }
  return sentences;
}

}  // namespace cartesian
