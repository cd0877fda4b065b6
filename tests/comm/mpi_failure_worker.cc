// One rank of a job over the transport that its first argument names, "mpi", "ucx", or "split": MPI
// within nodes of two ranks and UCX between them. It fails in the way its second argument says;
// started by mpi_failure_test.py, which reads what the ranks print: "rank R caught: <error>".

#include <fmt/format.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "base/error.h"
#include "comm/collectives.h"
#include "comm/mpi_transport.h"
#include "comm/split_transport.h"
#include "comm/ucx_transport.h"
#include "tests/comm/rank_harness.h"

namespace cartesian {
namespace {

using namespace std::chrono_literals;
using Buffer = std::array<std::byte, 16>;

void receive(Transport& transport, int peer, std::size_t bytes) {
  Buffer buffer{};
  transport.exchange({{"combine", 3}, {}, {{peer, std::span(buffer).first(bytes)}}});
}
void send(Transport& transport, int peer, std::size_t bytes) {
  const Buffer buffer{};
  transport.exchange({{"combine", 3}, {{peer, std::span(buffer).first(bytes)}}, {}});
}

/// The last rank misbehaves, the others wait for it.
void misbehave(Transport& transport, const std::string& how) {
  if (how == "silent") {
    std::this_thread::sleep_for(5s);
    receive(transport, 0, 8);
  } else if (how == "abort") {
    throw Error("no space left on device");
  } else if (how == "killed") {
    static_cast<void>(std::raise(SIGKILL));
  } else if (how == "short" || how == "long") {
    send(transport, 0, how == "short" ? 4 : 16);
    receive(transport, 0, 8);
  } else if (how == "unfinished") {
    std::_Exit(3);
  } else if (how == "idle") {
    // Posted and never waited for: ends with the others' news all the same.
    Buffer buffer{};
    const auto request = transport.post({{"combine", 3}, {}, {{0, buffer}}});
    throw Error("left with a message in flight");
  }
}

int run(const std::string& kind, const std::string& how) {
  const TransportOptions options{.timeout = Seconds(2)};
  const auto mpi = make_mpi_transport(options);
  std::unique_ptr<Transport> ucx;
  if (kind != "mpi") {
    ucx = make_ucx_transport(*make_bootstrap(*mpi), options);
  }
  std::unique_ptr<Transport> split;
  if (kind == "split") {
    split = make_split_transport(*mpi, *ucx);
    testing_ranks::set_nodes_of_two(*split);
  }
  Transport* const transport = split ? split.get() : ucx ? ucx.get() : mpi.get();
  const int last = transport->size() - 1;
  try {
    barrier(*transport);
    if (transport->rank() == last) {
      misbehave(*transport, how);
    } else {
      receive(*transport, last, 8);
      if (transport->rank() == 0) {
        receive(*transport, last, 8);
      }
    }
    transport->finish();
    mpi->finish();
    return EXIT_SUCCESS;
  } catch (const std::exception& error) {
    fmt::print(stderr, "rank {} caught: {}\n", transport->rank(), error.what());
    std::fflush(stderr);
    transport->abort(error.what());
    // Time for the others to say what they heard before the launcher ends them.
    std::this_thread::sleep_for(1s);
  }
  return EXIT_FAILURE;
}

}  // namespace
}  // namespace cartesian

int main(int argc, char** argv) {
  return argc < 3 ? EXIT_FAILURE : cartesian::run(argv[1], argv[2]);
}
