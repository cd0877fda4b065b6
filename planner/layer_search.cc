#include "planner/layer_search.h"

#include <algorithm>
#include <limits>

#include "base/index.h"
#include "planner/balance.h"
#include "planner/graph_search.h"
#include "planner/label_alignment.h"
#include "planner/starts.h"

namespace cartesian {

namespace {

constexpr double kShareOfPairs = 0.15;   // of the work
constexpr double kShareOfStarts = 0.25;  // of the rest, to find which start is best
constexpr std::size_t kMostStarts = 3;   // that are searched from
constexpr double kWorkToBegin = 16;      // for each token of a sample
constexpr std::int64_t kFewestSampled = 512;
constexpr int kRankPackings = 200;
constexpr double kMuch = 0.05;  // over a limit

std::int64_t share_of(std::int64_t work, double share) {
  return static_cast<std::int64_t>(share * static_cast<double>(work));
}

/// Tokens that a search of so much work can look at often enough.
std::int64_t tokens_for(const LayerTrace& layer, std::int64_t work) {
  std::int64_t choices = 0;
  for (const LayerTrace::Group& group : layer.groups) {
    choices += group.choices;
  }
  const auto begin =
      kWorkToBegin * static_cast<double>(std::max<std::int64_t>(1, choices * choices / 16));
  return std::max(kFewestSampled, static_cast<std::int64_t>(static_cast<double>(work) / 2 / begin));
}

}  // namespace

LayerSearch::LayerSearch(Task task)
    : task_(std::move(task)),
      tokens_(task_.layer, tokens_for(task_.layer, task_.work)),
      partition_(tokens_.layer(), task_.costs, task_.all) {
  begin(share_of(task_.work, kShareOfPairs));
}

void LayerSearch::begin(std::int64_t work) {
  const CoActivation& all = *task_.all;
  const Partition::Costs& costs = task_.costs;
  const std::vector<Nodes> plain{
      cluster_start(all, costs, task_.limits), balanced_start(all.loads(), task_.limits),
      balanced_assignment(all.loads(), static_cast<int>(task_.layer.groups.size()),
                          task_.limits.slots, task_.limits.shares),
      linear_start(task_.layer, task_.topology)};
  starts_ = plain;
  // A pair of one group on one node saves a visit; a pair of both groups saves a meeting, but only
  // one of all the pairs of a token does.
  const double visit = *std::ranges::max_element(costs.visit);
  const double choices = std::max(1.0, all.choices());
  for (std::size_t i = 0; i < plain.size() && (i == 0 || work > 0); ++i) {
    for (const double cross : {costs.meet / choices, costs.meet / choices / choices}) {
      std::int64_t share = work / 2;
      work -= share;
      starts_.push_back(improve_pairs(all, {.same = visit, .cross = cross}, task_.limits, plain[i],
                                      task_.seed, share));
      work += share;
    }
  }
  if (!costs.was.empty()) {
    for (Nodes& start : starts_) {
      start = align_labels(start, costs.was, task_.ranks.ranks);
    }
    starts_.push_back(costs.was);
  } else if (costs.knows_homes(task_.layer)) {
    for (std::size_t i = 0, count = starts_.size(); i < count; ++i) {
      starts_.push_back(near_homes(starts_[i]));
    }
  }
  std::ranges::stable_sort(starts_, std::less<>(), [&](const Nodes& start) {
    return assignment_cost(tokens_.layer(), costs, start);
  });
}

/// Nodes that are alike named so that most tokens visit their own: swaps would hardly get there.
LayerSearch::Nodes LayerSearch::near_homes(const Nodes& nodes) const {
  const LayerTrace& layer = tokens_.layer();
  const std::size_t n = task_.limits.slots.size();
  std::vector<std::int64_t> visits(n * n);  // [node][home]
  std::vector<std::int64_t> last(n, -1);    // (token, group) that visited
  std::int64_t pair = 0;
  for (std::int64_t token = 0; token < layer.tokens; ++token) {
    const auto home = as_index(task_.costs.home_of(layer, token));
    for (std::size_t group = 0; group < layer.groups.size(); ++group, ++pair) {
      for (const std::int16_t id : layer.groups[group].of(token)) {
        const std::size_t expert = group * as_index(layer.experts) + as_index(std::max<int>(id, 0));
        if (const auto node = as_index(nodes[expert]); id >= 0 && last[node] != pair) {
          last[node] = pair;
          ++visits[node * n + home];
        }
      }
    }
  }
  return align_labels_by(nodes, visits, task_.ranks.ranks);
}

LayerSearch::Nodes LayerSearch::run(double share) {
  const auto work = share_of(task_.work, share) - share_of(task_.work, kShareOfPairs);
  const std::int64_t for_starts = share_of(work, kShareOfStarts);
  std::vector<Nodes> candidates{linear_start(task_.layer, task_.topology)};
  if (!task_.costs.was.empty()) {
    candidates.push_back(task_.costs.was);
  }
  Nodes best;
  double least = std::numeric_limits<double>::infinity();
  std::size_t tried = 0;
  const auto search_here = [&] {
    ++tried;
    candidates.push_back(partition_.assignment());
    improve(partition_, task_.limits,
            {.seed = task_.seed, .work = for_starts / static_cast<std::int64_t>(kMostStarts)});
    if (partition_.cost() < least) {
      least = partition_.cost();
      best = partition_.assignment();
    }
  };
  for (std::size_t i = 0; i < starts_.size() && tried < kMostStarts; ++i) {
    partition_.assign(starts_[i]);
    if (repaired()) {
      search_here();
    }
  }
  if (tried == 0) {  // no load that will do is found: at least the slots do
    partition_.assign(balanced_assignment(task_.all->loads(),
                                          static_cast<int>(task_.layer.groups.size()),
                                          task_.limits.slots, task_.limits.shares));
    repaired();
    search_here();
  }
  partition_.assign(best);
  improve(partition_, task_.limits, {.seed = task_.seed + 1, .work = work - for_starts});
  repair_ranks(partition_, task_.limits, task_.ranks, kRankPackings);
  candidates.push_back(partition_.assignment());
  return best_of(candidates);
}

/// False if some node is over its slots, or over its load whatever is done.
bool LayerSearch::repaired() {
  for (int node = 0; node < partition_.nodes(); ++node) {
    if (partition_.node_size(node) > task_.limits.slots[as_index(node)]) {
      return false;
    }
  }
  return repair(partition_, task_.limits);
}

/// By what share the most overloaded node or rank is over its limit; infinite if slots do not do.
double LayerSearch::excess(const Nodes& nodes) const {
  std::vector<int> size(task_.limits.slots.size());
  std::vector<Loads> load(size.size());
  for (std::size_t expert = 0; expert < nodes.size(); ++expert) {
    ++size[as_index(nodes[expert])];
    load[as_index(nodes[expert])] += task_.all->loads(static_cast<int>(expert));
  }
  double excess = 0;
  const auto over = [&](double by, double limit) {
    if (by > 0) {
      excess = std::max(excess, limit > 0 ? by / limit : std::numeric_limits<double>::infinity());
    }
  };
  for (std::size_t node = 0; node < size.size(); ++node) {
    if (size[node] > task_.limits.slots[node]) {
      return std::numeric_limits<double>::infinity();
    }
    over(task_.limits.overload(static_cast<int>(node), load[node]), task_.limits.load[node]);
  }
  for (const std::int64_t most : most_loaded_ranks(*task_.all, nodes, task_.ranks)) {
    over(static_cast<double>(most) - task_.ranks.load, task_.ranks.load);
  }
  return excess;
}

/// In the whole trace: the search has seen a part of it. What is much over the limits, as may
/// happen where ranks cannot be evened out, gives way to what is within them.
LayerSearch::Nodes LayerSearch::best_of(const std::vector<Nodes>& candidates) const {
  const Nodes* best = &candidates.back();
  double least = excess(*best) > kMuch ? std::numeric_limits<double>::infinity()
                                       : assignment_cost(task_.layer, task_.costs, *best);
  for (const Nodes& candidate : candidates) {
    if (excess(candidate) == 0) {
      const double cost = assignment_cost(task_.layer, task_.costs, candidate);
      if (cost < least) {
        least = cost;
        best = &candidate;
      }
    }
  }
  return *best;
}

}  // namespace cartesian
