#include "tests/planner/exhaustive.h"

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <numeric>

#include "base/index.h"

namespace cartesian::test {

namespace {

constexpr double kRounding = 1e-7;
constexpr std::size_t kMostNodes = 8;

/// All tokens that choose the same experts. Sets are bit masks.
struct Pattern {
  std::array<unsigned, 2> experts{};  // of A and B, bit e: expert e of the group
  double tokens = 0;
  // While experts are placed one by one:
  std::array<unsigned, 2> nodes{};
  std::array<int, 2> left{};  // experts that have no place yet
};

std::vector<Pattern> patterns_of(const LayerTrace& layer) {
  std::map<std::array<unsigned, 2>, double> count;
  for (std::int64_t token = 0; token < layer.tokens; ++token) {
    std::array<unsigned, 2> experts{};
    for (std::size_t group = 0; group < layer.groups.size(); ++group) {
      for (const std::int16_t id : layer.groups[group].of(token)) {
        experts.at(group) |= id >= 0 ? 1U << id : 0U;
      }
    }
    ++count[experts];
  }
  std::vector<Pattern> patterns;
  for (const auto& [experts, tokens] : count) {
    patterns.push_back({.experts = experts, .tokens = tokens});
  }
  return patterns;
}

double visits(const Room& room, unsigned nodes) {
  double sum = 0;
  for (std::size_t node = 0; node < room.visit.size(); ++node) {
    sum += (nodes >> node & 1) != 0 ? room.visit[node] : 0;
  }
  return sum;
}

class BranchAndBound {
 public:
  BranchAndBound(double bound, const LayerTrace& layer, const Room& room)
      : room_(room),
        experts_(layer.experts),
        least_(bound),
        patterns_(patterns_of(layer)),
        size_(room.slots.size()),
        load_(room.slots.size()),
        of_expert_(layer.groups.size() * as_index(layer.experts)),
        expert_load_(of_expert_.size()) {
    for (unsigned nodes = 0; nodes < 1U << room.slots.size(); ++nodes) {
      visits_.push_back(visits(room, nodes));
    }
    for (std::size_t p = 0; p < patterns_.size(); ++p) {
      for (std::size_t expert = 0; expert < of_expert_.size(); ++expert) {
        if ((patterns_[p].experts.at(group(expert)) >> expert % as_index(experts_) & 1) != 0) {
          of_expert_[expert].push_back(p);
          expert_load_[expert] += patterns_[p].tokens;
          ++patterns_[p].left.at(group(expert));
        }
      }
      cost_ += at_least(patterns_[p]);
    }
    order_.resize(of_expert_.size());
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    std::ranges::stable_sort(order_, std::greater<>(),
                             [&](std::size_t expert) { return expert_load_[expert]; });
    place(0);
  }
  double least() const { return least_; }

 private:
  std::size_t group(std::size_t expert) const { return expert / as_index(experts_); }

  /// What a pattern's tokens cost, visits that are still to come left out: exactly, when all is
  /// placed.
  double at_least(const Pattern& pattern) const {
    const bool both = pattern.experts[0] != 0 && pattern.experts[1] != 0;
    const bool meets =
        (pattern.nodes[0] & pattern.nodes[1]) != 0 || pattern.left[0] + pattern.left[1] > 0;
    return pattern.tokens * (visits_[pattern.nodes[0]] + visits_[pattern.nodes[1]] -
                             (both && meets ? room_.meet : 0));
  }

  /// What is to come at least: an expert pays its share of every node that it is the first on, the
  /// experts of a token that have no place yet being all the first; or the last hope of a meeting.
  double to_come(std::size_t expert) const {
    const std::size_t g = group(expert);
    std::array<double, kMostNodes> costs{};
    for (const std::size_t p : of_expert_[expert]) {
      const Pattern& pattern = patterns_[p];
      const double share = pattern.tokens / pattern.left.at(g);
      const unsigned there = pattern.nodes.at(g);
      const unsigned other = pattern.nodes.at(1 - g);
      const bool last =
          pattern.left[0] + pattern.left[1] == 1 && other != 0 && (there & other) == 0;
      for (std::size_t node = 0; node < size_.size(); ++node) {
        costs.at(node) += (there >> node & 1) != 0 ? 0 : share * room_.visit[node];
        costs.at(node) += last && (other >> node & 1) == 0 ? pattern.tokens * room_.meet : 0;
      }
    }
    double least = std::numeric_limits<double>::infinity();
    for (std::size_t node = 0; node < size_.size(); ++node) {
      least = fits(expert, node) ? std::min(least, costs.at(node)) : least;
    }
    return least;
  }

  bool fits(std::size_t expert, std::size_t node) const {
    return size_[node] < room_.slots[node] &&
           load_[node] + expert_load_[expert] <= room_.load[node] + kRounding;
  }

  /// An empty node like an earlier empty one would only repeat it.
  bool repeats(std::size_t node) const {
    for (std::size_t other = 0; other < node; ++other) {
      if (size_[node] == 0 && size_[other] == 0 && room_.slots[node] == room_.slots[other] &&
          room_.load[node] == room_.load[other] && room_.visit[node] == room_.visit[other]) {
        return true;
      }
    }
    return false;
  }

  void place(std::size_t placed) {
    double bound = cost_;
    for (std::size_t i = placed; i < order_.size() && bound < least_ - kRounding; ++i) {
      bound += to_come(order_[i]);
    }
    if (bound >= least_ - kRounding) {
      return;
    }
    if (placed == order_.size()) {
      least_ = cost_;
      return;
    }
    const std::size_t expert = order_[placed];
    for (std::size_t node = 0; node < size_.size(); ++node) {
      if (fits(expert, node) && !repeats(node)) {
        put(expert, node, placed);
      }
    }
  }

  void put(std::size_t expert, std::size_t node, std::size_t placed) {
    const double cost = cost_;
    const std::size_t g = group(expert);
    std::vector<unsigned> before;
    before.reserve(of_expert_[expert].size());
    for (const std::size_t p : of_expert_[expert]) {
      Pattern& pattern = patterns_[p];
      before.push_back(pattern.nodes.at(g));
      cost_ -= at_least(pattern);
      pattern.nodes.at(g) |= 1U << node;
      --pattern.left.at(g);
      cost_ += at_least(pattern);
    }
    ++size_[node];
    load_[node] += expert_load_[expert];
    place(placed + 1);
    --size_[node];
    load_[node] -= expert_load_[expert];
    for (std::size_t i = 0; i < before.size(); ++i) {
      Pattern& pattern = patterns_[of_expert_[expert][i]];
      pattern.nodes.at(g) = before[i];
      ++pattern.left.at(g);
    }
    cost_ = cost;
  }

  const Room& room_;
  int experts_;
  double least_;
  double cost_ = 0;  // at least
  std::vector<Pattern> patterns_;
  std::vector<int> size_;                            // [nodes]
  std::vector<double> load_;                         // [nodes]
  std::vector<std::vector<std::size_t>> of_expert_;  // [experts] patterns
  std::vector<double> expert_load_;
  std::vector<double> visits_;  // [sets of nodes]
  std::vector<std::size_t> order_;
};

}  // namespace

Room make_room(const LayerTrace& layer, const Topology& topology, Flow flow, int slots,
               double cap) {
  double choices = 0;
  for (const LayerTrace::Group& group : layer.groups) {
    choices +=
        static_cast<double>(std::ranges::count_if(group.ids, [](int id) { return id >= 0; }));
  }
  const bool pivot = flow == Flow::pivot && layer.groups.size() == 2;
  Room room{.slots = {}, .load = {}, .visit = {}, .meet = pivot ? 1.0 : 0.0};
  for (int node = 0; node < topology.nodes(); ++node) {
    const auto ranks = static_cast<int>(topology.ranks_of_node(node).size());
    const double share = static_cast<double>(ranks) / topology.ranks();
    room.slots.push_back(slots * ranks);
    room.load.push_back(cap * choices * share);
    // To the node unless home is there, and back: to home, or to the pivot, which is elsewhere.
    room.visit.push_back(1 - share + (pivot ? 1 : 1 - share));
  }
  return room;
}

double cost_of(const LayerTrace& layer, const Room& room, const std::vector<int>& node_of) {
  double cost = 0;
  for (const Pattern& pattern : patterns_of(layer)) {
    std::array<unsigned, 2> nodes{};
    for (std::size_t expert = 0; expert < node_of.size(); ++expert) {
      const std::size_t group = expert / as_index(layer.experts);
      if ((pattern.experts.at(group) >> expert % as_index(layer.experts) & 1) != 0) {
        nodes.at(group) |= 1U << node_of[expert];
      }
    }
    cost += pattern.tokens * (visits(room, nodes[0]) + visits(room, nodes[1]) -
                              ((nodes[0] & nodes[1]) != 0 ? room.meet : 0));
  }
  return cost;
}

double least_cost_below(double bound, const LayerTrace& layer, const Room& room) {
  return BranchAndBound(bound, layer, room).least();
}

}  // namespace cartesian::test
