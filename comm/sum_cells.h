#pragma once
// SumCells: which members of a team sum which elements of an array, node first. Internal to
// BegunSum. Immutable.
//
// The array is cut into as many pieces as the largest node has members. In every node each piece
// has a holder, which sums it over the node's members. A piece is cut into one cell for each node,
// whose holder there sums it over the nodes.

#include <cstddef>
#include <vector>

#include "base/topology.h"
#include "comm/collectives.h"

namespace cartesian {

class SumCells {
 public:
  /// Members are numbered by their position in `team`, nodes among those that have members.
  SumCells(const Team& team, const Topology& topology, std::size_t elements);

  struct Range {
    std::size_t begin = 0;
    std::size_t end = 0;
    std::size_t size() const { return end - begin; }
  };

  std::size_t members() const { return node_of_.size(); }
  std::size_t nodes() const { return members_of_.size(); }
  std::size_t pieces() const { return pieces_; }
  std::size_t node_of(std::size_t member) const { return node_of_[member]; }
  const std::vector<std::size_t>& members_of(std::size_t node) const { return members_of_[node]; }
  std::size_t holder(std::size_t node, std::size_t piece) const {
    return members_of_[node][piece % members_of_[node].size()];
  }
  Range piece(std::size_t piece) const { return part({0, elements_}, piece, pieces_); }
  Range cell(std::size_t piece, std::size_t node) const {
    return part(this->piece(piece), node, nodes());
  }
  std::vector<std::size_t> pieces_held_by(std::size_t member) const;

 private:
  /// One of `count` even parts, that begin on cache lines if the range does; the last may be short
  /// or empty.
  static Range part(Range range, std::size_t index, std::size_t count);

  std::size_t elements_;
  std::size_t pieces_ = 0;
  std::vector<std::size_t> node_of_;                  ///< [members]
  std::vector<std::vector<std::size_t>> members_of_;  ///< [nodes] ascending
};

}  // namespace cartesian
