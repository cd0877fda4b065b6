#pragma once
// Runs the same test bodies over every transport: as threads with the local transport (one program,
// several sizes), or as one of mpirun's processes with the mpi transport (rank_harness_mpi.cc has
// that program's main). Every process runs the same tests in the same order.

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "base/arena.h"
#include "base/clock.h"
#include "base/context.h"
#include "base/metrics.h"
#include "base/topology.h"
#include "comm/transport.h"

namespace cartesian::testing_ranks {

/// The numbers of ranks to test with.
std::vector<int> job_sizes();

/// Runs `body` once on each of `size` ranks.
void run_ranks(int size, const std::function<void(Transport&)>& body);

/// Ranks 0 and 1 on one node, 2 and 3 on the next, ...: for transports that differ by it.
inline void set_nodes_of_two(Transport& transport) {
  std::vector<int> node_of_rank;
  for (int rank = 0; rank < transport.size(); ++rank) {
    node_of_rank.push_back(rank / 2);
  }
  const std::vector<std::string> hosts(node_of_rank.size(), transport.host());
  transport.set_topology(Topology(std::move(node_of_rank)), hosts);
}

/// What one rank's ops need.
struct RankContext {
  HostAllocator allocator;
  Arena scratch{allocator};
  Arena arena{allocator};
  Metrics metrics;
  SteadyClock clock;
  Context context{.scratch = scratch, .metrics = metrics, .clock = clock};
};

/// A fixture with one test instance for each job size.
class RankTest : public ::testing::TestWithParam<int> {
 protected:
  void run(const std::function<void(Transport&)>& body) const { run_ranks(GetParam(), body); }
};

inline std::string size_name(const ::testing::TestParamInfo<int>& info) {
  return "ranks" + std::to_string(info.param);
}

}  // namespace cartesian::testing_ranks
