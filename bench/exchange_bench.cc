// The transport and the exchange (flat: within one node) beside plain MPI, in one run:
//   mpirun -np 2 --bind-to none --mca mpi_yield_when_idle 1 build/release/bench/exchange_bench
// Every line is the median of interleaved repetitions on rank 0 and the ratio ours / MPI.

#include <fmt/format.h>
#include <mpi.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <numeric>
#include <vector>

#include "base/random.h"
#include "comm/collectives.h"
#include "comm/exchange.h"
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

/// The same rows there and back by MPI_Alltoallv, already in order of destination: what plain MPI
/// would need beside it (gathering, ordering by expert, padding, summing) is left out.
class PlainAllToAll {
 public:
  PlainAllToAll(const ExchangePlan& plan, std::int64_t row_bytes) {
    const auto lay_out = [row_bytes](const std::vector<std::int64_t>& rows,
                                     std::vector<int>& counts, std::vector<int>& begins) {
      int begin = 0;
      for (const std::int64_t n : rows) {
        counts.push_back(static_cast<int>(n * row_bytes));
        begins.push_back(begin);
        begin += counts.back();
      }
      return static_cast<std::size_t>(begin);
    };
    home_.resize(lay_out(plan.to_experts.sent, send_counts_, send_begins_));
    experts_.resize(lay_out(plan.to_experts.received, recv_counts_, recv_begins_));
  }

  void there_and_back() {
    MPI_Alltoallv(home_.data(), send_counts_.data(), send_begins_.data(), MPI_BYTE, experts_.data(),
                  recv_counts_.data(), recv_begins_.data(), MPI_BYTE, MPI_COMM_WORLD);
    MPI_Alltoallv(experts_.data(), recv_counts_.data(), recv_begins_.data(), MPI_BYTE, home_.data(),
                  send_counts_.data(), send_begins_.data(), MPI_BYTE, MPI_COMM_WORLD);
  }

 private:
  std::vector<std::byte> home_;
  std::vector<std::byte> experts_;
  std::vector<int> send_counts_, send_begins_, recv_counts_, recv_begins_;
};

void bench_exchange(const Context& context, Transport& transport, DType dtype,
                    std::int64_t tokens) {
  constexpr int kExperts = 16;
  constexpr int kChoices = 2;
  constexpr std::int64_t kHidden = 768;
  const Topology topology = Topology::single_node(transport.size());
  const Placement placement =
      Placement::linear({1, 1, kExperts, transport.size()}, transport.size());
  Exchange exchange(transport, topology, placement, {.flow = Flow::flat});
  HostAllocator allocator;
  Arena arena(allocator);
  std::vector<std::int32_t> experts(static_cast<std::size_t>(tokens * kChoices));
  for (std::size_t i = 0; i < experts.size(); i += 2) {
    const std::uint64_t bits = random_bits(static_cast<std::uint64_t>(transport.rank()) + 1, i);
    experts[i] = static_cast<std::int32_t>(bits % kExperts);
    experts[i + 1] = (experts[i] + 1 + static_cast<std::int32_t>(bits >> 32) % 7) % kExperts;
    experts[i + 1] = experts[i + 1] < 0 ? experts[i + 1] + kExperts : experts[i + 1];
  }
  std::vector<float> gates(experts.size(), 1.0F);
  std::vector<SourceToken> sources;
  for (std::int64_t token = 0; token < tokens; ++token) {
    sources.push_back({static_cast<std::int32_t>(token), transport.rank(), 0});
  }
  const TokenRouting routing{.tokens = sources,
                             .experts = Tensor(experts.data(), {tokens, kChoices}),
                             .gates = Tensor(gates.data(), {tokens, kChoices}),
                             .shared_weights = {},
                             .expected = {},
                             .home_tokens = tokens};
  HostAllocator kept;
  Arena rows(kept);
  const Tensor x = rows.zeros(dtype, {tokens, kHidden});
  const Tensor out = rows.zeros(dtype, {tokens, kHidden});
  ExchangePlan plan = exchange.finish_plan(exchange.begin_plan(context, routing));
  static_cast<void>(
      exchange.finish_spread(context, arena, plan, exchange.begin_spread(context, plan, x)));
  const std::vector<const std::byte*> from = row_sources(x);
  const auto hand_out = [&] {
    return exchange.finish_hand_out(context, arena, plan,
                                    exchange.begin_hand_out(context, plan, dtype, kHidden, from));
  };
  hand_out();  // the first time with the choices
  const std::vector<std::uint8_t> fresh(static_cast<std::size_t>(tokens), 1);
  const auto ours = [&] {
    arena.reset();
    const Rows received = hand_out();
    exchange.finish_collect(context, plan, exchange.begin_collect(context, plan, received),
                            row_targets(out), fresh);
  };
  PlainAllToAll plain(plan, kHidden * static_cast<std::int64_t>(size_of(dtype)));
  compare(transport.rank(),
          fmt::format("dispatch + combine, {} tokens, {}", tokens, name_of(dtype)), 25, ours,
          [&plain] { plain.there_and_back(); });
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
  for (const std::int64_t tokens : {64, 512, 4096}) {
    bench_exchange(context, transport, DType::f32, tokens);
    bench_exchange(context, transport, DType::bf16, tokens);
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
