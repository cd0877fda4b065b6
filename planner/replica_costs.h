#pragma once
// ReplicaCosts: one layer's experts over nodes, some of them on several, with the copies that
// tokens need, in the mean over uniform homes if the trace knows none, and the load of every node,
// both by a sample of the trace.

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "planner/node_limits.h"
#include "planner/replica_routes.h"

namespace cartesian {

/// Not thread-safe.
class ReplicaCosts {
 public:
  struct Options {
    ReplicaRoutes::Options routes = {};
    double replica = 0;             ///< what a replica costs, in copies of all the trace's tokens
    double away = 0;                ///< what one costs where it was not before
    std::vector<NodeSet> was = {};  ///< [experts] where they were; empty: anywhere
  };
  struct Change {
    int expert;
    NodeSet nodes;
  };

  /// `loads`: [experts] choices in the whole trace; `nodes_of`: [experts] where each is. `layer`,
  /// `topology` and `limits` must outlive this. REQUIRES: at most kMostReplicaNodes nodes.
  ReplicaCosts(const LayerTrace& layer, const Topology& topology, const NodeLimits& limits,
               std::span<const std::int64_t> loads, std::vector<NodeSet> nodes_of, Options options);

  /// What looking at one token counts as.
  static std::int64_t work_of_token(const LayerTrace& layer, const Topology& topology,
                                    const ReplicaRoutes::Options& routes);

  int experts() const { return static_cast<int>(nodes_of_.size()); }
  int nodes() const { return routes_.nodes(); }
  /// [experts of A, then of B].
  const std::vector<NodeSet>& nodes_of() const { return nodes_of_; }
  /// Copies of all the trace's tokens.
  double copies() const;
  /// Copies, and what replicas and moves cost.
  double cost() const;
  /// Choices beyond the nodes' limits.
  double overload() const;
  /// Choices of an expert that its replica on a node serves, [experts][nodes], of the whole trace.
  std::vector<double> served() const;
  /// Tokens that were looked at so far, those with many choices or homes counted more than once:
  /// what a search has cost, on any machine.
  std::int64_t work() const { return work_; }

  /// The cost that changes are judged by is copies + smoothing * (rows - copies), rows being the
  /// copies if every choice had one of its own: 0 unless set.
  void set_smoothing(double smoothing);
  /// What a replica more would save: copies, less what it costs.
  double saving(int expert, int node);
  /// Whether the node has a free slot, and about enough load to spare.
  bool has_room(int expert, int node) const;
  /// Makes the changes if they save more than they cost, or cost less than `loss` more, and no
  /// node's load rises above its limit, or above what it was where that is more; returns what they
  /// save then. Slots are the caller's.
  std::optional<double> try_change(std::span<const Change> wanted, double loss = 0);
  /// Every expert somewhere else.
  void assign(std::vector<NodeSet> nodes_of);

 private:
  int group_of(int expert) const { return expert / experts_of_group_; }
  double cost_of(int sample);
  void set_nodes(int expert, NodeSet nodes);
  void add_loads(std::span<const int> samples, double sign);
  /// Of an expert that no sampled token chooses: its replicas share what it has.
  void add_unsampled_load(int expert, double sign);
  std::vector<int> samples_of(std::span<const Change> changes) const;
  void exchange(std::span<Change> changes);
  double scale() const { return scale_; }
  /// Choices of an expert in the whole trace for one in the sample.
  double scale_of(int expert) const;
  /// What an expert's replicas cost.
  double price(int expert, NodeSet nodes) const;

  ReplicaRoutes routes_;
  const NodeLimits& limits_;
  Options options_;
  int experts_of_group_;
  double scale_ = 0;                          // tokens of the trace for one in the sample
  std::vector<NodeSet> nodes_of_;             // [experts]
  std::vector<std::int64_t> load_;            // [experts] choices in the whole trace
  std::vector<int> node_size_;                // [nodes]
  std::vector<Loads> node_load_;              // [nodes] choices that are served there
  std::vector<std::vector<int>> samples_of_;  // [experts] sampled tokens
  double smoothing_ = 0;                      // cost = copies + smoothing_ * (rows - copies)
  std::vector<double> costs_;                 // of each sampled token
  std::int64_t work_ = 0;
  std::int64_t work_of_token_ = 1;  // of one with many choices, over that of one with two and two
};

}  // namespace cartesian
