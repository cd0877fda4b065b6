#include "comm/local_transport.h"
#include "tests/comm/rank_harness.h"

namespace cartesian::testing_ranks {

std::vector<int> job_sizes() { return {1, 2, 3, 4, 7}; }

void run_ranks(int size, const std::function<void(Transport&)>& body) {
  run_local_ranks(size, body, {.timeout = Seconds(60)});
}

}  // namespace cartesian::testing_ranks
