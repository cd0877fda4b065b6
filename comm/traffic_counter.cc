#include "comm/traffic_counter.h"

#include <fmt/format.h>

#include "base/check.h"

namespace cartesian {

namespace {

Counter& scoped_counter(Metrics& metrics, const char* what, const char* scope) {
  return metrics.counter(fmt::format("cartesian_transport_{}_total{{scope=\"{}\"}}", what, scope));
}

}  // namespace

TrafficCounter::TrafficCounter(Metrics* metrics, int rank, int size)
    : metrics_(metrics), rank_(rank) {
  if (metrics_ != nullptr) {
    const Scope unknown{&scoped_counter(*metrics_, "messages", "unknown"),
                        &scoped_counter(*metrics_, "bytes", "unknown")};
    scope_of_peer_.assign(static_cast<std::size_t>(size), unknown);
  }
}

void TrafficCounter::set_topology(const Topology& topology) {
  if (metrics_ == nullptr) {
    return;
  }
  check(topology.ranks() == static_cast<int>(scope_of_peer_.size()),
        "topology and transport have the same number of ranks");
  scope_of_peer_.clear();
  for (int peer = 0; peer < topology.ranks(); ++peer) {
    const char* scope = topology.node(peer) == topology.node(rank_) ? "intra" : "inter";
    scope_of_peer_.push_back({&scoped_counter(*metrics_, "messages", scope),
                              &scoped_counter(*metrics_, "bytes", scope)});
  }
}

void TrafficCounter::count(int peer, std::size_t bytes) {
  if (metrics_ == nullptr || peer == rank_) {
    return;
  }
  Scope& scope = scope_of_peer_[static_cast<std::size_t>(peer)];
  scope.messages->add(1.0);
  scope.bytes->add(static_cast<double>(bytes));
}

}  // namespace cartesian
