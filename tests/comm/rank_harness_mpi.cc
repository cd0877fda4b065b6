// The harness and the main of a test program that mpirun starts: each process is one rank.

#include <cstdio>
#include <cstdlib>

#include "comm/mpi_transport.h"
#include "tests/comm/rank_harness.h"

namespace cartesian::testing_ranks {

namespace {

Transport* g_transport = nullptr;  // set by main before any test

}  // namespace

std::vector<int> job_sizes() { return {g_transport->size()}; }

void run_ranks(int size, const std::function<void(Transport&)>& body) {
  ASSERT_EQ(size, g_transport->size());
  try {
    body(*g_transport);
  } catch (const std::exception& error) {
    // The ranks are out of step now: no later test can run.
    std::fprintf(stderr, "rank %d: %s\n", g_transport->rank(), error.what());
    g_transport->abort(error.what());
    std::_Exit(EXIT_FAILURE);
  }
}

}  // namespace cartesian::testing_ranks

int main(int argc, char** argv) {
  const auto transport = cartesian::make_mpi_transport({.timeout = cartesian::Seconds(60)});
  cartesian::testing_ranks::g_transport = transport.get();
  ::testing::InitGoogleTest(&argc, argv);
  const int result = RUN_ALL_TESTS();
  transport->finish();
  return result;
}
