#pragma once
// ReplicaCosts: one layer's experts over nodes, some of them on several, with the copies that
// tokens need in the mean over uniform homes and the load of every node, both by a sample of the
// trace. Which replica serves a token follows base/itinerary.h; the pivot is the best there is.

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/itinerary.h"
#include "planner/partition_search.h"

namespace cartesian {

using NodeSet = std::uint64_t;  ///< bit n: node n
inline constexpr int kMostReplicaNodes = 64;
inline NodeSet node_bit(int node) { return NodeSet{1} << node; }

/// Not thread-safe.
class ReplicaCosts {
 public:
  struct Options {
    Flow flow = Flow::pivot;
    std::int64_t sample = 4096;     ///< tokens that are looked at, spread over the trace
    int homes = 8;                  ///< of each token; with at least as many as nodes, all
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

  int experts() const { return static_cast<int>(nodes_of_.size()); }
  int nodes() const { return topology_.nodes(); }
  /// [experts of A, then of B].
  const std::vector<NodeSet>& nodes_of() const { return nodes_of_; }
  /// Copies of all the trace's tokens.
  double copies() const;
  /// Copies, and what replicas and moves cost.
  double cost() const;
  /// Whether no node is over its slots or its load.
  bool within_limits() const;
  /// Choices of an expert that its replica on a node serves, [experts][nodes], of the whole trace.
  std::vector<double> served() const;
  /// Tokens that were looked at so far: what a search has cost, on any machine.
  std::int64_t work() const { return work_; }

  /// The cost that changes are judged by is copies + smoothing * (rows - copies), rows being the
  /// copies if every choice had one of its own: 0 unless set.
  void set_smoothing(double smoothing);
  /// What a replica more would save: copies, less what it costs.
  double saving(int expert, int node);
  /// Whether the node has a free slot, and about enough load to spare.
  bool has_room(int expert, int node) const;
  /// Makes the changes if they save more than they cost and no node's load rises above its limit,
  /// or above what it was where that is more. Slots are the caller's.
  bool try_change(std::span<const Change> wanted);

 private:
  /// How a token with some home goes.
  struct Journey {
    int copies;
    int pivot;
    int rows;  ///< copies, if every choice had one of its own
  };
  /// Where one group's choices are served.
  struct Served {
    NodeSet nodes = 0;
    int choices = 0;
    std::array<std::uint8_t, 256> node;
    int beside(int other) const {
      return choices - static_cast<int>(std::count(node.begin(), node.begin() + choices, other));
    }
  };

  int groups() const { return static_cast<int>(layer_.groups.size()); }
  NodeSet nodes_of(int group, int id) const {
    return nodes_of_[static_cast<std::size_t>(group) * static_cast<std::size_t>(layer_.experts) +
                     static_cast<std::size_t>(id)];
  }
  template <class Visit>
  void serve(std::int64_t token, int group, int origin, int home, Visit visit) const;
  void serve_all(std::int64_t token, int group, int origin, int home, Served& served) const;
  Journey journey(std::int64_t token, int home) const;
  template <class Visit>
  void for_each_home(std::int64_t token, Visit visit) const;
  template <class Visit>
  void for_each_served(std::int64_t token, Visit visit) const;
  double cost_of(std::int64_t token);
  void set_nodes(int expert, NodeSet nodes);
  void add_loads(std::span<const int> samples, double sign);
  std::vector<int> samples_of(std::span<const Change> changes) const;
  void exchange(std::span<Change> changes);
  double scale() const;
  /// What an expert's replicas cost.
  double price(int expert, NodeSet nodes) const;

  const LayerTrace& layer_;
  const Topology& topology_;
  const NodeLimits& limits_;
  Options options_;
  std::vector<double> home_share_;            // [nodes]
  std::vector<NodeSet> nodes_of_;             // [experts]
  std::vector<std::int64_t> load_;            // [experts] choices in the whole trace
  std::vector<int> node_size_;                // [nodes]
  std::vector<double> node_load_;             // [nodes] choices that are served there
  std::vector<std::int64_t> sampled_;         // tokens
  std::vector<std::vector<int>> samples_of_;  // [experts] indices into sampled_
  double smoothing_ = 0;                      // cost = copies + smoothing_ * (rows - copies)
  std::vector<double> costs_;                 // of each sampled token
  std::int64_t work_ = 0;                     // tokens looked at
};

}  // namespace cartesian
