#include "base/topology.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdint>
#include <map>

#include "base/check.h"
#include "base/error.h"

namespace cartesian {

Topology::Topology(std::vector<int> node_of_rank) : node_of_rank_(std::move(node_of_rank)) {
  local_index_.reserve(node_of_rank_.size());
  for (int rank = 0; rank < ranks(); ++rank) {
    const int node = node_of_rank_[static_cast<std::size_t>(rank)];
    check(node >= 0 && node <= nodes(), "nodes are numbered in order of first appearance");
    if (node == nodes()) {
      ranks_of_node_.emplace_back();
    }
    auto& members = ranks_of_node_[static_cast<std::size_t>(node)];
    local_index_.push_back(static_cast<int>(members.size()));
    members.push_back(rank);
  }
}

Topology Topology::single_node(int ranks) {
  check(ranks >= 1, "a topology has at least one rank");
  return Topology(std::vector<int>(static_cast<std::size_t>(ranks), 0));
}

Topology Topology::from_node_sizes(std::span<const int> sizes, int ranks) {
  std::int64_t sum = 0;
  for (const int size : sizes) {
    if (size < 1) {
      throw ConfigError(
          fmt::format("parallel.node_sizes = [{}]: every node needs at least one rank",
                      fmt::join(sizes, ", ")));
    }
    sum += size;
  }
  if (sum != ranks) {
    throw ConfigError(
        fmt::format("parallel.node_sizes = [{}] adds up to {} ranks, but the job has {}",
                    fmt::join(sizes, ", "), sum, ranks));
  }
  std::vector<int> node_of_rank;
  for (std::size_t node = 0; node < sizes.size(); ++node) {
    node_of_rank.insert(node_of_rank.end(), static_cast<std::size_t>(sizes[node]),
                        static_cast<int>(node));
  }
  return Topology(std::move(node_of_rank));
}

Topology Topology::from_host_names(std::span<const std::string> host_of_rank) {
  std::map<std::string, int> node_of_host;
  std::vector<int> node_of_rank;
  for (const std::string& host : host_of_rank) {
    const int next = static_cast<int>(node_of_host.size());
    node_of_rank.push_back(node_of_host.emplace(host, next).first->second);
  }
  return Topology(std::move(node_of_rank));
}

std::span<const int> Topology::ranks_of_node(int node) const {
  check(node >= 0 && node < nodes(), "node out of range");
  return ranks_of_node_[static_cast<std::size_t>(node)];
}

int Topology::local_index(int rank) const {
  check(rank >= 0 && rank < ranks(), "rank out of range");
  return local_index_[static_cast<std::size_t>(rank)];
}

int Topology::rail(int node, int home) const {
  const auto members = ranks_of_node(node);
  return members[static_cast<std::size_t>(local_index(home)) % members.size()];
}

}  // namespace cartesian
