#include "planner/replica_costs.h"

#include <algorithm>
#include <array>
#include <bit>

#include "base/check.h"
#include "base/index.h"

namespace cartesian {

namespace {

constexpr double kLeastSaving = 1e-9;
constexpr double kLoadSlack = 1e-9;  // for sums in another order

int count_beside(NodeSet nodes, int node) { return std::popcount(nodes & ~node_bit(node)); }

/// One node of a set, evenly over tokens and experts.
NodeSet pick(NodeSet nodes, std::int64_t token, int expert) {
  const auto mixed = static_cast<std::uint64_t>(token * 2654435761 + expert * 40503);
  auto skip = static_cast<int>((mixed >> 7) % static_cast<std::uint64_t>(std::popcount(nodes)));
  while (skip-- > 0) {
    nodes &= nodes - 1;
  }
  return nodes & (~nodes + 1);
}

}  // namespace

ReplicaCosts::ReplicaCosts(const LayerTrace& layer, const Topology& topology,
                           const NodeLimits& limits, std::span<const std::int64_t> loads,
                           std::vector<NodeSet> nodes_of, Options options)
    : layer_(layer),
      topology_(topology),
      limits_(limits),
      options_(std::move(options)),
      nodes_of_(std::move(nodes_of)),
      load_(loads.begin(), loads.end()),
      node_size_(limits.slots.size()),
      node_load_(limits.slots.size()),
      samples_of_(load_.size()) {
  check(topology.nodes() <= kMostReplicaNodes, "replicas are searched on few nodes");
  check(nodes_of_.size() == load_.size(), "every expert has its nodes and its load");
  for (int node = 0; node < topology.nodes(); ++node) {
    home_share_.push_back(static_cast<double>(topology.ranks_of_node(node).size()) /
                          topology.ranks());
    for (const NodeSet nodes : nodes_of_) {
      node_size_[as_index(node)] += (nodes & node_bit(node)) != 0 ? 1 : 0;
    }
  }
  const std::int64_t count = std::min(options_.sample, layer.tokens);
  std::vector<int> all;
  for (std::int64_t i = 0; i < count; ++i) {
    sampled_.push_back(i * layer.tokens / count);
    all.push_back(static_cast<int>(i));
    for (int group = 0; group < groups(); ++group) {
      for (const std::int16_t id : layer.groups[as_index(group)].of(sampled_.back())) {
        if (id >= 0) {
          samples_of_[as_index(std::int64_t{group} * layer.experts + id)].push_back(all.back());
        }
      }
    }
    costs_.push_back(cost_of(sampled_.back()));
  }
  add_loads(all, 1);
}

double ReplicaCosts::price(int expert, NodeSet nodes) const {
  double price = options_.replica * (std::popcount(nodes) - 1);
  if (!options_.was.empty()) {
    price += options_.away * std::popcount(nodes & ~options_.was[as_index(expert)]);
  }
  return price;
}

double ReplicaCosts::cost() const {
  double cost = copies();
  for (int expert = 0; expert < experts(); ++expert) {
    cost += price(expert, nodes_of_[as_index(expert)]);
  }
  return cost;
}

bool ReplicaCosts::within_limits() const {
  for (std::size_t node = 0; node < node_size_.size(); ++node) {
    if (node_size_[node] > limits_.slots[node] ||
        node_load_[node] > limits_.load[node] * (1 + kLoadSlack)) {
      return false;
    }
  }
  return true;
}

double ReplicaCosts::scale() const {
  return static_cast<double>(layer_.tokens) /
         static_cast<double>(std::max<std::size_t>(1, sampled_.size()));
}

/// Calls visit(id, node) for every choice, with the node whose replica serves it.
template <class Visit>
void ReplicaCosts::serve(std::int64_t token, int group, int origin, int home, Visit visit) const {
  const auto ids = layer_.groups[as_index(group)].of(token);
  NodeSet forced = 0;
  bool open = false;
  for (std::size_t i = 0; i < ids.size() && ids[i] >= 0; ++i) {
    const NodeSet nodes = nodes_of(group, ids[i]);
    const bool here = (nodes & node_bit(origin)) != 0;
    if (here || std::has_single_bit(nodes)) {
      const NodeSet node = here ? node_bit(origin) : nodes;
      forced |= node;
      visit(ids[i], std::countr_zero(node));
    } else {
      open = true;
    }
  }
  for (std::size_t i = 0; open && i < ids.size() && ids[i] >= 0; ++i) {
    const NodeSet nodes = nodes_of(group, ids[i]);
    if ((nodes & node_bit(origin)) == 0 && !std::has_single_bit(nodes)) {
      const NodeSet there = (nodes & forced) != 0           ? nodes & forced
                            : (nodes & node_bit(home)) != 0 ? node_bit(home)
                                                            : nodes;
      visit(ids[i], std::countr_zero(pick(there, token, ids[i])));
    }
  }
}

void ReplicaCosts::serve_all(std::int64_t token, int group, int origin, int home,
                             Served& served) const {
  served.nodes = 0;
  served.choices = 0;
  serve(token, group, origin, home, [&](int, int node) {
    served.nodes |= node_bit(node);
    served.node[as_index(served.choices++)] = static_cast<std::uint8_t>(node);
  });
}

ReplicaCosts::Journey ReplicaCosts::journey(std::int64_t token, int home) const {
  Served a;
  serve_all(token, 0, home, home, a);
  if (groups() == 1) {
    return {2 * count_beside(a.nodes, home), home, 2 * a.beside(home)};
  }
  Served b;
  serve_all(token, 1, home, home, b);
  Journey best{2 * count_beside(a.nodes, home) + 2 * count_beside(b.nodes, home), home,
               2 * a.beside(home) + 2 * b.beside(home)};
  if (options_.flow == Flow::pivot) {
    for (NodeSet rest = a.nodes & ~node_bit(home); rest != 0; rest &= rest - 1) {
      const int pivot = std::countr_zero(rest);
      serve_all(token, 1, pivot, home, b);
      const int stays = b.choices == 0 ? 1 : 0;
      const int copies = count_beside(a.nodes, home) + count_beside(a.nodes, pivot) +
                         count_beside(b.nodes, pivot) + count_beside(b.nodes, home) + stays;
      if (copies < best.copies) {
        best = {copies, pivot,
                a.beside(home) + a.beside(pivot) + b.beside(pivot) + b.beside(home) + stays};
      }
    }
  }
  return best;
}

/// Calls visit(home, share of the homes that go the same way).
template <class Visit>
void ReplicaCosts::for_each_home(std::int64_t token, Visit visit) const {
  const int nodes = topology_.nodes();
  if (nodes > options_.homes) {
    for (int i = 0; i < options_.homes; ++i) {
      const auto rank =
          static_cast<int>((token * 7919 + std::int64_t{i} * topology_.ranks() / options_.homes) %
                           topology_.ranks());
      visit(topology_.node(rank), 1.0 / options_.homes);
    }
    return;
  }
  NodeSet hosting = 0;
  for (int group = 0; group < groups(); ++group) {
    for (const std::int16_t id : layer_.groups[as_index(group)].of(token)) {
      hosting |= id >= 0 ? nodes_of(group, id) : 0;
    }
  }
  double elsewhere = 1;  // homes that host none of its experts are all alike
  for (NodeSet rest = hosting; rest != 0; rest &= rest - 1) {
    const int home = std::countr_zero(rest);
    elsewhere -= home_share_[as_index(home)];
    visit(home, home_share_[as_index(home)]);
  }
  if (const int other = std::countr_one(hosting); other < nodes) {
    visit(other, elsewhere);
  }
}

/// Calls visit(expert, node, weight) for every choice and home.
template <class Visit>
void ReplicaCosts::for_each_served(std::int64_t token, Visit visit) const {
  for_each_home(token, [&](int home, double weight) {
    const int pivot = journey(token, home).pivot;
    for (int group = 0; group < groups(); ++group) {
      serve(token, group, group == 0 ? home : pivot, home,
            [&](int id, int node) { visit(group * layer_.experts + id, node, weight); });
    }
  });
}

double ReplicaCosts::cost_of(std::int64_t token) {
  ++work_;
  double sum = 0;
  for_each_home(token, [&](int home, double weight) {
    const Journey way = journey(token, home);
    sum += weight * (way.copies + smoothing_ * (way.rows - way.copies));
  });
  return sum;
}

void ReplicaCosts::set_smoothing(double smoothing) {
  smoothing_ = smoothing;
  for (std::size_t i = 0; i < sampled_.size(); ++i) {
    costs_[i] = cost_of(sampled_[i]);
  }
}

double ReplicaCosts::copies() const {
  double sum = 0;
  for (const std::int64_t token : sampled_) {
    for_each_home(token,
                  [&](int home, double weight) { sum += weight * journey(token, home).copies; });
  }
  return scale() * sum;
}

std::vector<double> ReplicaCosts::served() const {
  std::vector<double> served(nodes_of_.size() * node_size_.size());
  for (const std::int64_t token : sampled_) {
    for_each_served(token, [&](int expert, int node, double weight) {
      served[as_index(expert) * node_size_.size() + as_index(node)] += scale() * weight;
    });
  }
  return served;
}

void ReplicaCosts::set_nodes(int expert, NodeSet nodes) {
  NodeSet& held = nodes_of_[as_index(expert)];
  for (NodeSet rest = held ^ nodes; rest != 0; rest &= rest - 1) {
    const int node = std::countr_zero(rest);
    node_size_[as_index(node)] += (nodes & node_bit(node)) != 0 ? 1 : -1;
  }
  held = nodes;
}

void ReplicaCosts::add_loads(std::span<const int> samples, double sign) {
  for (const int i : samples) {
    for_each_served(sampled_[as_index(i)], [&](int, int node, double weight) {
      node_load_[as_index(node)] += sign * scale() * weight;
    });
  }
}

double ReplicaCosts::saving(int expert, int node) {
  const NodeSet before = nodes_of_[as_index(expert)];
  nodes_of_[as_index(expert)] |= node_bit(node);
  double saved = 0;
  for (const int i : samples_of_[as_index(expert)]) {
    saved += costs_[as_index(i)] - cost_of(sampled_[as_index(i)]);
  }
  const double price = this->price(expert, nodes_of_[as_index(expert)]);
  nodes_of_[as_index(expert)] = before;
  return saved * scale() - (price - this->price(expert, before));
}

bool ReplicaCosts::has_room(int expert, int node) const {
  const double more = static_cast<double>(load_[as_index(expert)]) /
                      (std::popcount(nodes_of_[as_index(expert)]) + 1);
  return node_size_[as_index(node)] < limits_.slots[as_index(node)] &&
         node_load_[as_index(node)] + more <= limits_.load[as_index(node)];
}

std::vector<int> ReplicaCosts::samples_of(std::span<const Change> changes) const {
  std::vector<int> samples;
  for (const Change& change : changes) {
    const auto& more = samples_of_[as_index(change.expert)];
    samples.insert(samples.end(), more.begin(), more.end());
  }
  std::ranges::sort(samples);
  samples.erase(std::unique(samples.begin(), samples.end()), samples.end());
  return samples;
}

/// What `changes` want is in force, and what was is in `changes`.
void ReplicaCosts::exchange(std::span<Change> changes) {
  for (Change& change : changes) {
    const NodeSet before = nodes_of_[as_index(change.expert)];
    set_nodes(change.expert, change.nodes);
    change.nodes = before;
  }
}

bool ReplicaCosts::try_change(std::span<const Change> wanted) {
  std::vector<Change> changes(wanted.begin(), wanted.end());
  double price = 0;
  for (const Change& change : wanted) {
    price += this->price(change.expert, change.nodes) -
             this->price(change.expert, nodes_of_[as_index(change.expert)]);
  }
  const std::vector<int> samples = samples_of(changes);
  exchange(changes);
  std::vector<double> costs;
  double saved = 0;
  for (const int i : samples) {
    costs.push_back(cost_of(sampled_[as_index(i)]));
    saved += costs_[as_index(i)] - costs.back();
  }
  if (saved * scale() <= price + kLeastSaving) {
    exchange(changes);
    return false;
  }
  const std::vector<double> loads = node_load_;
  exchange(changes);
  add_loads(samples, -1);
  exchange(changes);
  add_loads(samples, 1);
  for (std::size_t node = 0; node < loads.size(); ++node) {
    if (node_load_[node] > std::max(limits_.load[node], loads[node]) * (1 + kLoadSlack)) {
      exchange(changes);
      node_load_ = loads;
      return false;
    }
  }
  for (std::size_t i = 0; i < samples.size(); ++i) {
    costs_[as_index(samples[i])] = costs[i];
  }
  return true;
}

}  // namespace cartesian
