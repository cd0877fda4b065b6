#pragma once
// Placement: for each MoE layer, group (0 = A, 1 = B) and expert, the ranks that hold a replica of
// it. Immutable, thread-safe. `layer` counts MoE layers here, 0, 1, ..., not blocks.

#include <span>
#include <string>
#include <vector>

#include "base/file_system.h"
#include "base/topology.h"

namespace cartesian {

/// What must be placed. Every layer has the same groups.
struct PlacementShape {
  int layers = 0;
  int groups = 0;
  int experts = 0;
  int ranks = 0;
  bool operator==(const PlacementShape&) const = default;
};

class Placement {
 public:
  /// replicas[(layer * groups + group) * experts + expert]: ranks, at least one, ascending,
  /// distinct. Throws ConfigError naming layer, group and expert otherwise.
  Placement(PlacementShape shape, std::vector<std::vector<int>> replicas);

  /// Expert e on rank floor(e * R / N) of every block of R = `ranks_per_group` consecutive ranks:
  /// experts spread evenly over each block and replicated between blocks. Throws ConfigError naming
  /// parallel.expert_ranks unless R divides the ranks.
  static Placement linear(PlacementShape shape, int ranks_per_group);
  /// Every expert in every node, spread evenly over the node's ranks.
  static Placement local(PlacementShape shape, const Topology& topology);
  /// The JSON of docs/formats.md. Throws FormatError (malformed) or ConfigError (another shape),
  /// naming the file.
  static Placement load(FileSystem& files, const Path& path, PlacementShape expected);
  /// The same of `text`, which `source` names in errors.
  static Placement parse(const std::string& text, const std::string& source,
                         PlacementShape expected);
  /// `plan`: a JSON object about how it was planned, kept under "plan", which load() passes over;
  /// or nothing.
  std::string to_json(const std::string& plan = "") const;

  const PlacementShape& shape() const { return shape_; }
  /// Ascending ranks.
  std::span<const int> replicas(int layer, int group, int expert) const;
  /// Experts with a replica on `rank`, ascending: the rank's slots of that layer and group.
  std::span<const int> experts_on(int layer, int group, int rank) const;
  /// Position of `expert` in experts_on(layer, group, rank), or -1.
  int slot(int layer, int group, int rank, int expert) const;
  /// How likely tokens that choose A's `expert` meet one of B's on each node, for choosing pivots
  /// (itinerary.h): [nodes], or empty if the placement has none.
  std::span<const float> pivot_scores(int layer, int expert) const;
  /// The placement with scores [layers][experts][nodes], finite. Throws ConfigError otherwise.
  Placement with_pivot_scores(int nodes, std::vector<float> scores) const;
  Placement without_pivot_scores() const;
  /// Of pivot scores; 0 if there are none.
  int score_nodes() const { return score_nodes_; }
  bool operator==(const Placement& other) const {
    return shape_ == other.shape_ && replicas_ == other.replicas_ &&
           score_nodes_ == other.score_nodes_ && pivot_scores_ == other.pivot_scores_;
  }

 private:
  std::size_t index(int layer, int group, int expert) const;
  std::size_t slots_index(int layer, int group, int rank) const;
  void list_experts_on();

  PlacementShape shape_;
  std::vector<std::vector<int>> replicas_;
  int score_nodes_ = 0;
  std::vector<float> pivot_scores_;  // [layers][experts][score_nodes_]
  // Those of (layer * groups + group) * ranks + rank begin at first_on_ of it and end before the
  // next's.
  std::vector<int> experts_on_;
  std::vector<std::size_t> first_on_;
};

}  // namespace cartesian
