// One of four ranks of a training step, over the transport that the first argument names, of which
// the last is killed at the group of messages that the second numbers; -1: none, and it prints the
// phases. Started by phase_failure_test.py, which reads "rank R caught: <error>".

#include <fmt/format.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "comm/mpi_transport.h"
#include "comm/split_transport.h"
#include "comm/ucx_transport.h"
#include "tests/comm/rank_harness.h"
#include "tests/runtime/train/failing_step.h"

namespace cartesian::test {
namespace {

int run(const std::string& kind, int at) {
  const TransportOptions options{.timeout = Seconds(3)};
  const auto mpi = make_mpi_transport(options);
  std::unique_ptr<Transport> ucx;
  std::unique_ptr<Transport> split;
  if (kind != "mpi") {
    ucx = make_ucx_transport(*make_bootstrap(*mpi), options);
  }
  if (kind == "split") {
    split = make_split_transport(*mpi, *ucx);
  }
  Transport& transport = split ? *split : ucx ? *ucx : *mpi;
  testing_ranks::set_nodes_of_two(transport);
  try {
    const std::vector<std::string> phases =
        run_failing_step(transport, at, [] { static_cast<void>(std::raise(SIGKILL)); });
    if (transport.rank() == kFailingRanks - 1) {
      fmt::print("phases: {}\n", fmt::join(phases, ", "));
    }
    transport.finish();
    mpi->finish();
    return EXIT_SUCCESS;
  } catch (const std::exception& error) {
    fmt::print(stderr, "rank {} caught: {}\n", transport.rank(), error.what());
    std::fflush(stderr);
    transport.abort(error.what());
    std::this_thread::sleep_for(std::chrono::seconds(1));  // for the others to say what they heard
  }
  std::_Exit(EXIT_FAILURE);
}

}  // namespace
}  // namespace cartesian::test

int main(int argc, char** argv) {
  return argc < 3 ? EXIT_FAILURE : cartesian::test::run(argv[1], std::atoi(argv[2]));
}
