#pragma once
// Cluster: the machines that a placement is planned for: which ranks share a node, how fast ranks
// and nodes talk, how much memory and arithmetic a rank has. Immutable, thread-safe.

#include <span>
#include <string>
#include <vector>

#include "base/file_system.h"
#include "base/topology.h"

namespace cartesian {

/// A message of n bytes takes latency_s + n / bytes_per_s.
struct LinkClass {
  double bytes_per_s = 0;
  double latency_s = 0;
};

struct Cluster {
  Topology topology = Topology::single_node(1);
  LinkClass intra;  ///< of a rank, to ranks of its node
  LinkClass inter;  ///< of a node's network card, all ranks of the node together
  double memory_bytes =
      0;             ///< of a rank, for weights, gradients and moments of experts; 0: no limit
  double flops = 0;  ///< of a rank, of matrix products

  /// What ranks reach of `flops`, and nodes' cards of inter.bytes_per_s: above 0, at most 1; empty:
  /// all of it.
  std::vector<double> rank_speeds = {};
  std::vector<double> card_speeds = {};

  double rank_flops(int rank) const;
  double card_bytes_per_s(int node) const;
  /// Until the last card is done with `bytes`, [nodes], without latency.
  double cards_s(std::span<const double> bytes) const;
};

/// [ranks] what of all choices each should serve, over the mean of the ranks: in proportion to its
/// speed. Empty: all alike. Cards have no part in it: tokens at home on a node keep its card busy
/// wherever experts are, and the more so the fewer of them are there.
std::vector<double> load_shares(const Cluster& cluster);

/// A cluster of nodes alike, with the links of a node of eight GPUs and one 400 Gbit/s card a node.
Cluster uniform_cluster(int nodes, int ranks_per_node);

/// Reads TOML (docs/formats.md). Throws FileError, or FormatError naming the file, the key and what
/// is wrong with it.
Cluster load_cluster(FileSystem& files, const Path& path);

}  // namespace cartesian
