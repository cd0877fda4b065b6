#include "planner/replica_costs.h"

#include <algorithm>
#include <bit>
#include <numeric>

#include "base/check.h"
#include "base/index.h"

namespace cartesian {

namespace {

constexpr double kLeastSaving = 1e-9;
constexpr std::int64_t kWorkOfSampledHomes = 3;  // none of which are alike
constexpr double kLoadSlack = 1e-9;              // for sums in another order

}  // namespace

ReplicaCosts::ReplicaCosts(const LayerTrace& layer, const Topology& topology,
                           const NodeLimits& limits, std::span<const std::int64_t> loads,
                           std::vector<NodeSet> nodes_of, Options options)
    : routes_(layer, topology, options.routes),
      limits_(limits),
      options_(std::move(options)),
      experts_of_group_(layer.experts),
      scale_(static_cast<double>(layer.tokens) / std::max(1, routes_.tokens())),
      load_(loads.begin(), loads.end()),
      node_size_(limits.slots.size()),
      node_load_(limits.slots.size()),
      samples_of_(load_.size()) {
  work_of_token_ = work_of_token(layer, topology, options_.routes);
  for (int i = 0; i < routes_.tokens(); ++i) {
    for (int group = 0; group < routes_.groups(); ++group) {
      for (const int expert : routes_.chosen(i, group)) {
        samples_of_[as_index(expert)].push_back(i);
      }
    }
  }
  assign(std::move(nodes_of));
}

std::int64_t ReplicaCosts::work_of_token(const LayerTrace& layer, const Topology& topology,
                                         const ReplicaRoutes::Options& routes) {
  std::int64_t choices = 0;
  for (const LayerTrace::Group& group : layer.groups) {
    choices += group.choices;
  }
  const bool sampled = layer.home.empty() && topology.nodes() > routes.homes;
  const std::int64_t homes =
      !layer.home.empty()
          ? 1
          : std::min<std::int64_t>(choices + 1, std::min(topology.nodes(), routes.homes));
  return std::max<std::int64_t>(1, homes * choices / 16) * (sampled ? kWorkOfSampledHomes : 1);
}

void ReplicaCosts::assign(std::vector<NodeSet> nodes_of) {
  check(nodes_of.size() == load_.size(), "every expert has its nodes and its load");
  nodes_of_ = std::move(nodes_of);
  std::ranges::fill(node_size_, 0);
  std::ranges::fill(node_load_, Loads{});
  for (int node = 0; node < nodes(); ++node) {
    for (const NodeSet held : nodes_of_) {
      node_size_[as_index(node)] += (held & node_bit(node)) != 0 ? 1 : 0;
    }
  }
  std::vector<int> all(as_index(routes_.tokens()));
  std::iota(all.begin(), all.end(), 0);
  costs_.resize(all.size());
  for (const int i : all) {
    costs_[as_index(i)] = cost_of(i);
  }
  add_loads(all, 1);
  for (int expert = 0; expert < experts(); ++expert) {
    add_unsampled_load(expert, 1);
  }
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

double ReplicaCosts::overload() const {
  double overload = 0;
  for (std::size_t node = 0; node < node_load_.size(); ++node) {
    const double over = limits_.overload(static_cast<int>(node), node_load_[node]);
    overload += over > kLoadSlack * node_load_[node].both() ? over : 0;
  }
  return overload;
}

double ReplicaCosts::scale_of(int expert) const {
  const std::size_t sampled = samples_of_[as_index(expert)].size();
  return sampled > 0 ? static_cast<double>(load_[as_index(expert)]) / static_cast<double>(sampled)
                     : 0;
}

double ReplicaCosts::cost_of(int sample) {
  work_ += work_of_token_;
  double sum = 0;
  routes_.for_each_home(sample, nodes_of_, [&](int home, double share) {
    const ReplicaRoutes::Route way = routes_.route(sample, home, nodes_of_);
    sum += share * (way.copies + smoothing_ * (way.rows - way.copies));
  });
  return sum;
}

void ReplicaCosts::set_smoothing(double smoothing) {
  smoothing_ = smoothing;
  for (int i = 0; i < routes_.tokens(); ++i) {
    costs_[as_index(i)] = cost_of(i);
  }
}

double ReplicaCosts::copies() const {
  double sum = 0;
  for (int i = 0; i < routes_.tokens(); ++i) {
    routes_.for_each_home(i, nodes_of_, [&](int home, double share) {
      sum += share * routes_.route(i, home, nodes_of_).copies;
    });
  }
  return scale() * sum;
}

std::vector<double> ReplicaCosts::served() const {
  std::vector<double> served(nodes_of_.size() * node_size_.size());
  for (int i = 0; i < routes_.tokens(); ++i) {
    routes_.for_each_served(i, nodes_of_, [&](int expert, int node, double share) {
      served[as_index(expert) * node_size_.size() + as_index(node)] += scale_of(expert) * share;
    });
  }
  for (std::size_t expert = 0; expert < nodes_of_.size(); ++expert) {
    const NodeSet nodes = nodes_of_[expert];
    for (NodeSet rest = samples_of_[expert].empty() ? nodes : 0; rest != 0; rest &= rest - 1) {
      served[expert * node_size_.size() + as_index(std::countr_zero(rest))] =
          static_cast<double>(load_[expert]) / std::popcount(nodes);
    }
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
    routes_.for_each_served(i, nodes_of_, [&](int expert, int node, double share) {
      node_load_[as_index(node)].add(group_of(expert), sign * scale_of(expert) * share);
    });
  }
}

void ReplicaCosts::add_unsampled_load(int expert, double sign) {
  if (!samples_of_[as_index(expert)].empty()) {
    return;
  }
  const NodeSet nodes = nodes_of_[as_index(expert)];
  for (NodeSet rest = nodes; rest != 0; rest &= rest - 1) {
    node_load_[as_index(std::countr_zero(rest))].add(
        group_of(expert),
        sign * static_cast<double>(load_[as_index(expert)]) / std::popcount(nodes));
  }
}

double ReplicaCosts::saving(int expert, int node) {
  const NodeSet before = nodes_of_[as_index(expert)];
  nodes_of_[as_index(expert)] |= node_bit(node);
  double saved = 0;
  for (const int i : samples_of_[as_index(expert)]) {
    saved += costs_[as_index(i)] - cost_of(i);
  }
  const double price = this->price(expert, nodes_of_[as_index(expert)]);
  nodes_of_[as_index(expert)] = before;
  return saved * scale() - (price - this->price(expert, before));
}

bool ReplicaCosts::has_room(int expert, int node) const {
  const double more = static_cast<double>(load_[as_index(expert)]) /
                      (std::popcount(nodes_of_[as_index(expert)]) + 1);
  return node_size_[as_index(node)] < limits_.slots[as_index(node)] &&
         limits_.allow(node, node_load_[as_index(node)], Loads{}.add(group_of(expert), more));
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

std::optional<double> ReplicaCosts::try_change(std::span<const Change> wanted, double loss) {
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
    costs.push_back(cost_of(i));
    saved += costs_[as_index(i)] - costs.back();
  }
  if (saved * scale() <= price - loss + kLeastSaving) {
    exchange(changes);
    return std::nullopt;
  }
  const std::vector<Loads> loads = node_load_;
  for (const double sign : {-1.0, 1.0}) {
    exchange(changes);
    add_loads(samples, sign);
    for (const Change& change : changes) {
      add_unsampled_load(change.expert, sign);
    }
  }
  for (std::size_t node = 0; node < loads.size(); ++node) {
    const double slack = kLoadSlack * node_load_[node].both();
    if (limits_.overload(static_cast<int>(node), node_load_[node]) >
        limits_.overload(static_cast<int>(node), loads[node]) + slack) {
      exchange(changes);
      node_load_ = loads;
      return std::nullopt;
    }
  }
  for (std::size_t i = 0; i < samples.size(); ++i) {
    costs_[as_index(samples[i])] = costs[i];
  }
  return saved * scale() - price;
}

}  // namespace cartesian
