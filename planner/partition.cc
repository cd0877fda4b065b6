#include "planner/partition.h"

#include <algorithm>
#include <bit>

#include "base/check.h"
#include "base/index.h"

namespace cartesian {

Partition::Partition(const LayerTrace& layer, Costs costs)
    : Partition(layer, std::move(costs), std::make_shared<CoActivation>(layer)) {}

Partition::Partition(const LayerTrace& layer, Costs costs, std::shared_ptr<const CoActivation> all)
    : layer_(layer),
      costs_(std::move(costs)),
      all_(std::move(all)),
      groups_(static_cast<int>(layer.groups.size())),
      nodes_(static_cast<int>(costs_.visit.size())),
      node_of_(as_index(std::int64_t{groups_} * layer.experts)),
      node_load_(as_index(nodes_)),
      node_size_(as_index(nodes_)),
      counts_(as_index(layer.tokens * groups_ * nodes_)),
      meetings_(as_index(layer.tokens)),
      alone_(node_of_.size()),
      lost_(node_of_.size()),
      visited_(node_of_.size() * as_index(nodes_)),
      would_meet_(visited_.size()),
      node_visits_(as_index(nodes_)) {
  check(nodes_ >= 1 && (groups_ == 1 || groups_ == 2), "a partition is over nodes");
  check(all_->experts() == experts(), "all tokens choose of the same experts");
  if (all_->tokens() > 0) {
    share_ = static_cast<double>(layer.tokens) / static_cast<double>(all_->tokens());
  }
  std::int64_t choices = 0;
  for (const LayerTrace::Group& group : layer_.groups) {
    check(group.choices < 256, "a token's choices are counted in one byte");
    choices += group.choices;
  }
  work_of_token_ = std::max<std::int64_t>(1, choices * choices / 16);
  if (costs_.knows_homes(layer_)) {
    std::ranges::fill(costs_.visit, 2.0);
    for (std::int64_t token = 0; token < layer_.tokens; ++token) {
      home_.push_back(costs_.home_of(layer_, token));
    }
    home_alone_.resize(node_of_.size());
    home_arrives_.resize(visited_.size());
  }
  index_tokens();
  assign(std::vector<int>(node_of_.size()));
}

void Partition::index_tokens() {
  first_token_.assign(node_of_.size() + 1, 0);
  const auto for_each_choice = [&](const auto& visit) {
    for (int group = 0; group < groups_; ++group) {
      for (std::int64_t token = 0; token < layer_.tokens; ++token) {
        for (const std::int16_t id : choices(token, group)) {
          if (id >= 0) {
            visit(as_index(number(group, id)), token);
          }
        }
      }
    }
  };
  for_each_choice([&](std::size_t expert, std::int64_t) { ++first_token_[expert + 1]; });
  for (std::size_t expert = 0; expert < node_of_.size(); ++expert) {
    first_token_[expert + 1] += first_token_[expert];
  }
  tokens_.resize(as_index(first_token_.back()));
  std::vector<std::int64_t> next(first_token_.begin(), first_token_.end() - 1);
  for_each_choice([&](std::size_t expert, std::int64_t token) {
    tokens_[as_index(next[expert]++)] = static_cast<std::int32_t>(token);
  });
}

template <class Visit>
void Partition::for_each_node(std::int64_t token, int group, Visit visit) const {
  const auto ids = choices(token, group);
  const std::size_t first = as_index(std::int64_t{group} * layer_.experts);
  for (std::size_t i = 0; i < ids.size() && ids[i] >= 0; ++i) {
    const int node = node_of_[first + as_index(ids[i])];
    bool seen = false;
    for (std::size_t j = 0; j < i && !seen; ++j) {
      seen = node_of_[first + as_index(ids[j])] == node;
    }
    if (!seen) {
      visit(node);
    }
  }
}

void Partition::assign(std::span<const int> nodes) {
  check(nodes.size() == node_of_.size(), "a node for every expert");
  node_of_.assign(nodes.begin(), nodes.end());
  std::ranges::fill(node_load_, Loads{});
  std::ranges::fill(node_size_, 0);
  std::ranges::fill(node_visits_, 0);
  for (int expert = 0; expert < experts(); ++expert) {
    check(node_of(expert) >= 0 && node_of(expert) < nodes_, "an expert is on a node");
    node_load_[as_index(node_of(expert))] += loads(expert);
    ++node_size_[as_index(node_of(expert))];
  }
  for (auto* table : {&alone_, &lost_, &visited_, &would_meet_, &home_alone_, &home_arrives_}) {
    std::ranges::fill(*table, 0);
  }
  std::ranges::fill(counts_, std::uint8_t{0});
  visits_home_ = 0;
  visits_meeting_ = 0;
  std::ranges::fill(meetings_, std::uint16_t{0});
  for (std::int64_t token = 0; token < layer_.tokens; ++token) {
    for (int group = 0; group < groups_; ++group) {
      for (const std::int16_t id : choices(token, group)) {
        if (id >= 0) {
          ++count(token, group, node_of(number(group, id)));
          if (!home_.empty()) {
            ++home_arrives_[cell(number(group, id), home_[as_index(token)])];
          }
        }
      }
    }
    // Counts are complete, so each group counts a meeting.
    for (int group = 0; group < groups_; ++group) {
      for_each_node(token, group, [&](int node) { add_presence(token, group, node, 1); });
    }
    meetings_[as_index(token)] /= 2;
    for (int group = 0; group < groups_; ++group) {
      for (const std::int16_t id : choices(token, group)) {
        const int expert = number(group, id);
        if (id >= 0 && count(token, group, node_of(expert)) == 1) {
          ++alone_[as_index(expert)];
          if (lives_on(token, node_of(expert))) {
            ++home_alone_[as_index(expert)];
          }
        }
      }
    }
    add_meeting(token, 1);
  }
}

double Partition::cost() const {
  double cost = -costs_.meet * static_cast<double>(visits_meeting_) -
                costs_.at_home * static_cast<double>(visits_home_);
  for (int node = 0; node < nodes_; ++node) {
    cost += costs_.visit[as_index(node)] * static_cast<double>(node_visits_[as_index(node)]);
  }
  for (int expert = 0; expert < experts(); ++expert) {
    cost += costs_.away_from(expert, node_of(expert));
  }
  return cost;
}

double Partition::gain(int expert, int node) const {
  const std::int64_t arrivals = tokens_choosing(expert) - visited_[cell(expert, node)];
  const double home =
      home_.empty()
          ? 0
          : costs_.at_home * (home_arrives_[cell(expert, node)] - home_alone_[as_index(expert)]);
  return home + costs_.visit[as_index(node_of(expert))] * alone_[as_index(expert)] -
         costs_.visit[as_index(node)] * static_cast<double>(arrivals) +
         costs_.meet * (would_meet_[cell(expert, node)] - lost_[as_index(expert)]) +
         costs_.away_from(expert, node_of(expert)) - costs_.away_from(expert, node);
}

void Partition::move(int expert, int to) {
  const int from = node_of(expert);
  if (from == to) {
    return;
  }
  work_ += tokens_choosing(expert) * work_of_token_;
  for (std::int64_t i = first_token_[as_index(expert)]; i < first_token_[as_index(expert) + 1];
       ++i) {
    move_in_token(tokens_[as_index(i)], expert, to);
    node_of_[as_index(expert)] = from;  // as the tokens that are still to come have it
  }
  node_of_[as_index(expert)] = to;
  node_load_[as_index(from)] = node_load_[as_index(from)] - loads(expert);
  node_load_[as_index(to)] += loads(expert);
  --node_size_[as_index(from)];
  ++node_size_[as_index(to)];
}

void Partition::move_in_token(std::int64_t token, int expert, int to) {
  const int group = group_of(expert);
  const int from = node_of(expert);
  add_meeting(token, -1);
  std::uint8_t& left = count(token, group, from);
  if (left == 1) {
    --alone_[as_index(expert)];
    if (lives_on(token, from)) {
      --home_alone_[as_index(expert)];
    }
    add_presence(token, group, from, -1);
  } else if (left == 2) {
    add_alone(token, expert, from, 1);
  }
  --left;
  std::uint8_t& reached = count(token, group, to);
  if (reached == 0) {
    ++alone_[as_index(expert)];
    if (lives_on(token, to)) {
      ++home_alone_[as_index(expert)];
    }
    add_presence(token, group, to, 1);
  } else if (reached == 1) {
    add_alone(token, expert, to, -1);
  }
  ++reached;
  node_of_[as_index(expert)] = to;
  add_meeting(token, 1);
}

void Partition::add_presence(std::int64_t token, int group, int node, int sign) {
  node_visits_[as_index(node)] += sign;
  const bool home = lives_on(token, node);
  visits_home_ += home ? sign : 0;
  if (groups_ == 2 && present(token, 1 - group, node)) {
    meetings_[as_index(token)] = static_cast<std::uint16_t>(meetings_[as_index(token)] + sign);
  }
  for (const std::int16_t id : choices(token, group)) {
    if (id >= 0) {
      visited_[cell(number(group, id), node)] += sign;
      if (home) {
        home_arrives_[cell(number(group, id), node)] -= sign;
      }
    }
  }
}

void Partition::add_alone(std::int64_t token, int expert, int node, int sign) {
  const int group = group_of(expert);
  for (const std::int16_t id : choices(token, group)) {
    if (id >= 0 && number(group, id) != expert && node_of(number(group, id)) == node) {
      alone_[as_index(number(group, id))] += sign;
      if (lives_on(token, node)) {
        home_alone_[as_index(number(group, id))] += sign;
      }
    }
  }
}

void Partition::add_meeting(std::int64_t token, int sign) {
  const int meetings = meetings_[as_index(token)];
  visits_meeting_ += meetings > 0 ? sign : 0;
  if (groups_ == 1 || meetings > 1) {
    return;
  }
  for (int group = 0; group < 2; ++group) {
    for (const std::int16_t id : choices(token, group)) {
      if (id < 0) {
        break;
      }
      const int expert = number(group, id);
      const int node = node_of(expert);
      const bool only =
          meetings == 1 && count(token, group, node) == 1 && present(token, 1 - group, node);
      lost_[as_index(expert)] += only ? sign : 0;
      if (only || meetings == 0) {
        for_each_node(token, 1 - group,
                      [&](int other) { would_meet_[cell(expert, other)] += sign; });
      }
    }
  }
}

namespace {

/// Over at most 64 nodes that all cost the same to visit: sets of nodes are bits of words.
double cost_by_words(const LayerTrace& layer, const Partition::Costs& costs,
                     std::span<const int> node_of) {
  std::vector<std::uint64_t> bit{0};  // of no expert, then of each
  for (const int node : node_of) {
    bit.push_back(std::uint64_t{1} << node);
  }
  const auto visited = [&](std::size_t group, std::int64_t token) {
    const std::uint64_t* of = bit.data() + (group == 1 ? layer.experts : 0);
    std::uint64_t nodes = 0;
    for (const std::int16_t id : layer.groups[group].of(token)) {
      nodes |= id < 0 ? 0 : of[id + 1];
    }
    return nodes;
  };
  std::int64_t visits = 0;
  std::int64_t meetings = 0;
  for (std::int64_t token = 0; token < layer.tokens; ++token) {
    const std::uint64_t a = visited(0, token);
    const std::uint64_t b = layer.groups.size() == 2 ? visited(1, token) : 0;
    visits += std::popcount(a) + std::popcount(b);
    meetings += (a & b) != 0 ? 1 : 0;
  }
  return costs.visit[0] * static_cast<double>(visits) - costs.meet * static_cast<double>(meetings);
}

double cost_by_lists(const LayerTrace& layer, const Partition::Costs& costs,
                     std::span<const int> node_of) {
  const std::size_t nodes = costs.visit.size();
  std::vector<std::int64_t> last(layer.groups.size() * nodes, -1);  // token that visited
  const bool homes = costs.knows_homes(layer);
  double cost = 0;
  for (std::int64_t token = 0; token < layer.tokens; ++token) {
    const auto home = homes ? as_index(costs.home_of(layer, token)) : nodes;
    bool meets = false;
    for (std::size_t group = 0; group < layer.groups.size(); ++group) {
      for (const std::int16_t id : layer.groups[group].of(token)) {
        if (id < 0) {
          break;
        }
        const auto node = as_index(node_of[group * as_index(layer.experts) + as_index(id)]);
        if (last[group * nodes + node] != token) {
          last[group * nodes + node] = token;
          cost += (homes ? 2 : costs.visit[node]) - (node == home ? costs.at_home : 0);
          meets = meets || (group == 1 && last[node] == token);
        }
      }
    }
    cost -= meets ? costs.meet : 0;
  }
  return cost;
}

}  // namespace

double assignment_cost(const LayerTrace& layer, const Partition::Costs& costs,
                       std::span<const int> node_of) {
  const bool alike =
      std::ranges::all_of(costs.visit, [&](double visit) { return visit == costs.visit.front(); });
  double cost = alike && costs.visit.size() <= 64 && !costs.knows_homes(layer)
                    ? cost_by_words(layer, costs, node_of)
                    : cost_by_lists(layer, costs, node_of);
  for (std::size_t expert = 0; expert < node_of.size(); ++expert) {
    cost += costs.away_from(static_cast<int>(expert), node_of[expert]);
  }
  return cost;
}

Partition::Costs visit_costs(const Topology& topology, Flow flow, std::size_t groups) {
  Partition::Costs costs;
  const bool pivot = flow == Flow::pivot && groups == 2;
  for (int node = 0; node < topology.nodes(); ++node) {
    const double share =
        static_cast<double>(topology.ranks_of_node(node).size()) / topology.ranks();
    costs.visit.push_back(pivot ? 2 - share : 2 - 2 * share);
    costs.visit_alone.push_back(2 - 2 * share);
  }
  costs.meet = pivot ? 1 : 0;
  costs.at_home = pivot ? 1 : 2;
  for (int rank = 0; rank < topology.ranks(); ++rank) {
    costs.node_of_rank.push_back(topology.node(rank));
  }
  return costs;
}

}  // namespace cartesian
