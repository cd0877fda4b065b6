// Ranks as threads with two local transports: one within nodes of two ranks, one between them.

#include "base/index.h"
#include "comm/local_transport.h"
#include "comm/split_transport.h"
#include "tests/comm/rank_harness.h"

namespace cartesian::testing_ranks {

std::vector<int> job_sizes() { return {1, 2, 3, 4, 7}; }

void run_ranks(int size, const std::function<void(Transport&)>& body) {
  const TransportOptions options{.timeout = Seconds(60)};
  const auto inter = make_local_transports(size, options);
  run_local_ranks(
      size,
      [&](Transport& intra) {
        const auto split = make_split_transport(intra, *inter[as_index(intra.rank())]);
        set_nodes_of_two(*split);
        try {
          body(*split);
          split->finish();
        } catch (const std::exception& error) {
          split->abort(error.what());
          throw;
        }
      },
      options);
}

}  // namespace cartesian::testing_ranks
