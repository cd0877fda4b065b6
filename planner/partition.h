#pragma once
// Partition: one layer's experts over nodes, each in one place, with the exact cost of every single
// move kept up to date. What local search runs on.
//
// Cost of a token whose A experts are on nodes V_A and B experts on V_B, over homes that are
// uniform: sum of visit[n] over V_A and over V_B, less `meet` if some node is in both: such a node
// can be the pivot, and B's copy to it is saved. With c = 1 - 1/M, the pivot flow has
// visit = 1 + c and meet = 1, the home flow visit = 2c and meet = 0; a constant of one copy a
// token, the pivot flow's gain, is left out. Tokens with choices in one group only, whose pivot
// stays at home, cost 2c a node in every flow: too few to matter to a search, and bounds know of
// them. An expert that is not where it was costs `away`.
// Where the trace knows a token's home, each group visits there for `at_home` less, and any node
// costs 2 otherwise: at_home = 1 in the pivot flow, 2 in the home flow.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/index.h"
#include "base/itinerary.h"
#include "planner/co_activation.h"
#include "planner/node_limits.h"

namespace cartesian {

/// Experts of both groups are numbered through: A's, then B's. Not thread-safe.
class Partition {
 public:
  struct Costs {
    std::vector<double> visit;  ///< [nodes]
    double meet = 0;
    /// [nodes] of a token with choices in one group only, for bounds; empty: as `visit`.
    std::vector<double> visit_alone = {};
    double at_home = 0;
    std::vector<int> node_of_rank = {};  ///< of homes; empty: they are taken to be uniform
    /// Of an expert that is not where it was, [experts] nodes; empty: nowhere. Where it
    /// had replicas on other nodes, too, it may go there for nothing: [experts] nodes, or empty.
    double away = 0;
    std::vector<int> was = {};
    std::vector<std::vector<int>> had = {};
    /// The node of a token's home; -1: it is not known.
    int home_of(const LayerTrace& layer, std::int64_t token) const {
      return knows_homes(layer) ? node_of_rank[as_index(layer.home[as_index(token)])] : -1;
    }
    bool knows_homes(const LayerTrace& layer) const {
      return !layer.home.empty() && !node_of_rank.empty();
    }
    double away_from(int expert, int node) const {
      if (was.empty() || was[as_index(expert)] == node) {
        return 0;
      }
      return !had.empty() &&
                     std::ranges::find(had[as_index(expert)], node) != had[as_index(expert)].end()
                 ? 0
                 : away;
    }
  };

  /// Every expert on node 0. `layer` must outlive this. It may be a sample of the tokens that
  /// `all` has counted, by which loads then go.
  Partition(const LayerTrace& layer, Costs costs, std::shared_ptr<const CoActivation> all);
  Partition(const LayerTrace& layer, Costs costs);

  int experts() const { return static_cast<int>(node_of_.size()); }
  int nodes() const { return nodes_; }
  int node_of(int expert) const { return node_of_[as_index(expert)]; }
  const std::vector<int>& assignment() const { return node_of_; }
  /// Tokens' choices of an expert, of all tokens.
  std::int64_t load(int expert) const { return all_->load(expert); }
  Loads loads(int expert) const {
    return Loads{}.add(group_of(expert), static_cast<double>(load(expert)));
  }
  const Loads& node_load(int node) const { return node_load_[as_index(node)]; }
  int node_size(int node) const { return node_size_[as_index(node)]; }

  /// Of the layer's tokens.
  double cost() const;
  /// By how much moving an expert to another node would lower the cost.
  double gain(int expert, int node) const;
  void move(int expert, int node);
  void assign(std::span<const int> nodes);
  /// Tokens of the layer, not of all, that choose both of two experts; of a sample about.
  double together(int a, int b) const { return share_ * static_cast<double>(all_->together(a, b)); }
  const CoActivation& all() const { return *all_; }
  bool same_group(int a, int b) const { return group_of(a) == group_of(b); }
  const Costs& costs() const { return costs_; }
  /// Tokens that move() has gone through so far, those with many choices counted more than once:
  /// what a search has cost, on any machine.
  std::int64_t work() const { return work_; }

 private:
  int group_of(int expert) const { return expert / layer_.experts; }
  int number(int group, int id) const { return group * layer_.experts + id; }
  std::size_t cell(int expert, int node) const {
    return as_index(expert) * as_index(nodes_) + as_index(node);
  }
  std::uint8_t& count(std::int64_t token, int group, int node) {
    return counts_[as_index((token * groups_ + group) * nodes_ + node)];
  }
  bool present(std::int64_t token, int group, int node) const {
    return counts_[as_index((token * groups_ + group) * nodes_ + node)] > 0;
  }
  std::span<const std::int16_t> choices(std::int64_t token, int group) const {
    return layer_.groups[as_index(group)].of(token);
  }
  void index_tokens();
  std::int64_t tokens_choosing(int expert) const {
    return first_token_[as_index(expert) + 1] - first_token_[as_index(expert)];
  }
  void move_in_token(std::int64_t token, int expert, int to);
  /// The group's experts of a token come to a node that had none of them, or leave it.
  void add_presence(std::int64_t token, int group, int node, int sign);
  /// To what is on `node` beside `expert`, of its group.
  void add_alone(std::int64_t token, int expert, int node, int sign);
  void add_meeting(std::int64_t token, int sign);
  bool lives_on(std::int64_t token, int node) const {
    return !home_.empty() && home_[as_index(token)] == node;
  }
  template <class Visit>
  void for_each_node(std::int64_t token, int group, Visit visit) const;

  const LayerTrace& layer_;
  Costs costs_;
  std::shared_ptr<const CoActivation> all_;
  double share_ = 1;  // of all tokens that are the layer's
  int groups_;
  int nodes_;
  std::int64_t work_ = 0;
  std::int64_t work_of_token_ = 1;  // of one with many choices, over that of one with two and two
  std::vector<int> node_of_;        // [experts]
  std::vector<Loads> node_load_;    // [nodes]
  std::vector<int> node_size_;      // [nodes] experts
  std::vector<std::int64_t> first_token_;  // [experts + 1] into tokens_
  std::vector<std::int32_t> tokens_;       // of each expert, ascending
  std::vector<std::uint8_t> counts_;       // [tokens][groups][nodes] of a token's experts
  std::vector<std::uint16_t> meetings_;    // [tokens] nodes in both V_A and V_B
  std::vector<int> home_;                  // [tokens] nodes; empty: not known
  // What gain() is made of, in tokens that choose the expert:
  std::vector<std::int32_t> alone_;         // [experts] no other of its group is on its node
  std::vector<std::int32_t> lost_;          // [experts] the only meeting would end if it left
  std::vector<std::int32_t> visited_;       // [experts][nodes] its group is on the node
  std::vector<std::int32_t> would_meet_;    // [experts][nodes] without it there is no meeting, and
                                            // the other group is on the node
  std::vector<std::int32_t> home_alone_;    // [experts] alone_ of tokens that live on its node
  std::vector<std::int32_t> home_arrives_;  // [experts][nodes] tokens that live on the node, and
                                            // have none of its group there
  std::int64_t visits_home_ = 0;            // (token, group) pairs that visit the token's home
  std::int64_t visits_meeting_ = 0;         // tokens with a meeting
  std::vector<std::int64_t> node_visits_;   // [nodes] (token, group) pairs that visit
};

/// The same cost from its definition, of any tokens: [experts] nodes.
double assignment_cost(const LayerTrace& layer, const Partition::Costs& costs,
                       std::span<const int> node_of);

/// The costs of a flow (`flat` as `home`) in layers with so many groups, over homes in proportion
/// to the nodes' ranks.
Partition::Costs visit_costs(const Topology& topology, Flow flow, std::size_t groups);

}  // namespace cartesian
