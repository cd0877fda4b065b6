// The harness and the main of a test program that mpirun starts: each process is one rank, with the
// mpi transport or, given the argument "ucx", the ucx transport, or given "split" both: MPI within
// nodes of two ranks, UCX between them.

#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "comm/mpi_transport.h"
#include "comm/split_transport.h"
#include "comm/ucx_transport.h"
#include "tests/comm/rank_harness.h"

namespace cartesian::testing_ranks {

namespace {

Transport* g_transport = nullptr;  // set by main before any test

}  // namespace

std::vector<int> job_sizes() { return {g_transport->size()}; }

void run_ranks(int size, const std::function<void(Transport&)>& body) {
  ASSERT_EQ(size, g_transport->size());
  try {
    set_nodes_of_two(*g_transport);
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
  const cartesian::TransportOptions options{.timeout = cartesian::Seconds(60)};
  const auto mpi = cartesian::make_mpi_transport(options);
  const std::string_view kind = argc > 1 ? argv[argc - 1] : "";
  std::unique_ptr<cartesian::Transport> ucx;
  std::unique_ptr<cartesian::Transport> split;
  if (kind == "ucx" || kind == "split") {
    ucx = cartesian::make_ucx_transport(*cartesian::make_bootstrap(*mpi), options);
  }
  if (kind == "split") {
    split = cartesian::make_split_transport(*mpi, *ucx);
  }
  cartesian::testing_ranks::g_transport = split ? split.get() : ucx ? ucx.get() : mpi.get();
  ::testing::InitGoogleTest(&argc, argv);  // asks for the job's size
  const int result = RUN_ALL_TESTS();
  if (ucx) {
    ucx->finish();
  }
  mpi->finish();
  return result;
}
