#pragma once
// Counts what a transport sends, by whether it stays in the node.

#include <cstddef>
#include <vector>

#include "base/metrics.h"
#include "base/topology.h"

namespace cartesian {

/// One rank's count of cartesian_transport_{messages,bytes}_total{scope="..."}. Messages to oneself
/// are not counted. Not thread-safe: belongs to the thread that posts.
class TrafficCounter {
 public:
  /// `metrics` may be null: then nothing is counted. It must outlive the counter.
  TrafficCounter(Metrics* metrics, int rank, int size);

  void set_topology(const Topology& topology);
  void count(int peer, std::size_t bytes);

 private:
  struct Scope {
    Counter* messages;
    Counter* bytes;
  };
  Metrics* metrics_;
  int rank_;
  std::vector<Scope> scope_of_peer_;
};

}  // namespace cartesian
