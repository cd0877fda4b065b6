// The transport and all_reduce beside plain MPI, in one run ('cartesian bench exchange' measures
// the exchange of tokens):
//   mpirun -np 2 --bind-to none --mca mpi_yield_when_idle 1 build/release/bench/transport_bench
// Every line is the median of interleaved repetitions on rank 0 and the ratio ours / MPI.

#include <fmt/format.h>
#include <mpi.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <vector>

#include "comm/collectives.h"
#include "comm/mpi_transport.h"

namespace cartesian {
namespace {

using Work = std::function<void()>;

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<long>(values.size() / 2),
                   values.end());
  return values[values.size() / 2];
}

double seconds_of(const Work& work) {
  MPI_Barrier(MPI_COMM_WORLD);
  const double start = MPI_Wtime();
  work();
  return MPI_Wtime() - start;
}

/// Runs both in turn and prints their medians in microseconds per `units` on rank 0.
void compare(int rank, const std::string& what, int repeats, const Work& ours, const Work& theirs,
             int units = 1) {
  std::vector<double> our_times;
  std::vector<double> their_times;
  for (int i = 0; i < repeats + 2; ++i) {
    const double our_time = seconds_of(ours);
    const double their_time = seconds_of(theirs);
    if (i >= 2) {  // the first ones warm up
      our_times.push_back(our_time);
      their_times.push_back(their_time);
    }
  }
  if (rank == 0) {
    const double us = 1e6 / units;
    const double our_median = median(our_times);
    const double their_median = median(their_times);
    fmt::print("{:<44} {:>12.2f} us {:>12.2f} us   ratio {:.2f}\n", what, our_median * us,
               their_median * us, our_median / their_median);
    std::fflush(stdout);
  }
}

void bench_ping_pong(Transport& transport, std::size_t bytes, int trips) {
  const int me = transport.rank();
  std::vector<std::byte> buffer(bytes);
  const auto ours = [&] {
    for (int i = 0; i < 2 * trips; ++i) {
      if (me == i % 2) {
        transport.exchange({{"ping"}, {{1 - me, buffer}}, {}});
      } else if (me < 2) {
        transport.exchange({{"ping"}, {}, {{1 - me, buffer}}});
      }
    }
  };
  const auto theirs = [&] {
    const int count = static_cast<int>(bytes);
    for (int i = 0; i < 2 * trips; ++i) {
      if (me == i % 2) {
        MPI_Send(buffer.data(), count, MPI_BYTE, 1 - me, 0, MPI_COMM_WORLD);
      } else if (me < 2) {
        MPI_Recv(buffer.data(), count, MPI_BYTE, 1 - me, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
      }
    }
  };
  compare(me, fmt::format("one-way message, {} bytes", bytes), 20, ours, theirs, 2 * trips);
}

void bench_all_reduce(const Context& context, Transport& transport, std::size_t elements) {
  std::vector<float> data(elements, 1.0F);
  const Team world = Team::world(transport);
  compare(
      transport.rank(), fmt::format("all_reduce, {} float32", elements), 15,
      [&] { all_reduce_sum(context, transport, world, std::span<float>(data)); },
      [&] {
        MPI_Allreduce(MPI_IN_PLACE, data.data(), static_cast<int>(elements), MPI_FLOAT, MPI_SUM,
                      MPI_COMM_WORLD);
      });
}

void bench_all(Transport& transport) {
  HostAllocator allocator;
  Arena scratch(allocator);
  Metrics metrics;
  const SteadyClock clock;
  const Context context{.scratch = scratch, .metrics = metrics, .clock = clock};
  if (transport.rank() == 0) {
    fmt::print("{} ranks{:<37} {:>15} {:>15}\n", transport.size(), "", "ours", "plain MPI");
  }
  if (transport.size() == 2) {
    bench_ping_pong(transport, 8, 1000);
    bench_ping_pong(transport, 4096, 1000);
    bench_ping_pong(transport, 1 << 20, 20);
  }
  for (const std::size_t elements : {16U, 4096U, 65536U, 1U << 20U, 1U << 24U}) {
    bench_all_reduce(context, transport, elements);
  }
}

}  // namespace
}  // namespace cartesian

int main(int argc, char** argv) {
  int provided = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &provided);
  const auto transport = cartesian::make_mpi_transport();
  cartesian::bench_all(*transport);
  transport->finish();
  MPI_Finalize();
  return 0;
}
