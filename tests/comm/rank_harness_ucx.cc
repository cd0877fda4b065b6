// Ranks as threads, each with a UCX worker of its own.

#include <thread>
#include <vector>

#include "comm/local_transport.h"
#include "comm/ucx_transport.h"
#include "tests/comm/rank_harness.h"

namespace cartesian::testing_ranks {

std::vector<int> job_sizes() { return {1, 2, 3, 5}; }

void run_ranks(int size, const std::function<void(Transport&)>& body) {
  // The local transport starts the threads, is the bootstrap, and keeps what is thrown first.
  run_local_ranks(size,
                  [&body](Transport& local) {
                    const auto bootstrap = make_bootstrap(local);
                    const auto transport = make_ucx_transport(*bootstrap, {.timeout = Seconds(60)});
                    try {
                      body(*transport);
                      transport->finish();
                    } catch (const std::exception& error) {
                      transport->abort(error.what());
                      throw;
                    }
                  },
                  {.timeout = Seconds(60)});
}

}  // namespace cartesian::testing_ranks
