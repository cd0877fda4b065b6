// What another project does with the installed package: ranks as threads run an op and sum its
// result over all of them.

#include <array>
#include <cstdio>

#include "base/context.h"
#include "comm/collectives.h"
#include "comm/local_transport.h"
#include "kernels/elementwise.h"

namespace {

constexpr int kRanks = 2;
constexpr float kExpected = kRanks * (1.0F + 2.0F);

void add_on_every_rank(cartesian::Transport& transport) {
  cartesian::HostAllocator allocator;
  cartesian::Arena scratch(allocator);
  cartesian::Metrics metrics;
  cartesian::SteadyClock clock;
  const cartesian::Context context{.scratch = scratch, .metrics = metrics, .clock = clock};

  std::array<float, 4> a{1, 1, 1, 1};
  std::array<float, 4> b{2, 2, 2, 2};
  std::array<float, 4> sum{};
  cartesian::add(context, {a.data(), {4}}, {b.data(), {4}}, {sum.data(), {4}});
  cartesian::all_reduce_sum(context, transport, cartesian::Team::world(transport), sum);
  for (const float value : sum) {
    cartesian::check(value == kExpected, "the sum over the ranks is right");
  }
}

}  // namespace

int main() {
  cartesian::run_local_ranks(kRanks, add_on_every_rank);
  std::puts("consumer: ok");
}
