// Which of its two transports a message travels by.

#include "comm/split_transport.h"

#include "base/index.h"
#include "comm/local_transport.h"
#include "tests/comm/rank_harness.h"

namespace cartesian {
namespace {

using testing_ranks::set_nodes_of_two;

/// Messages that went by each transport, once every rank has sent one to all others.
struct Sent {
  int intra = 0;
  int inter = 0;
};

Sent all_to_all(bool with_topology) {
  constexpr int kRanks = 4;
  constexpr std::size_t kBytes = 100'000;  // barriers of the end send a few, too
  Metrics within;
  Metrics between;
  const TransportOptions options{.timeout = Seconds(60), .metrics = &between};
  const auto inter = make_local_transports(kRanks, options);
  run_local_ranks(kRanks,
                  [&](Transport& intra) {
                    const auto split = make_split_transport(intra, *inter[as_index(intra.rank())]);
                    if (with_topology) {
                      set_nodes_of_two(*split);
                    }
                    MessageGroup group{{"test"}, {}, {}};
                    const std::vector<std::byte> sent(kBytes, std::byte{1});
                    std::vector<std::byte> received(kRanks * kBytes);
                    for (int peer = 0; peer < kRanks; ++peer) {
                      group.sends.push_back({peer, sent});
                      group.recvs.push_back(
                          {peer, std::span(received).subspan(as_index(peer) * kBytes, kBytes)});
                    }
                    split->post(std::move(group))->wait();
                    EXPECT_EQ(received, std::vector<std::byte>(kRanks * kBytes, std::byte{1}));
                    split->finish();
                  },
                  {.timeout = Seconds(60), .metrics = &within});
  const auto messages = [](const Metrics& metrics) {
    double bytes = 0;
    for (const auto& [name, value] : metrics.counters()) {
      bytes += name.starts_with("cartesian_transport_bytes_total") ? value : 0;
    }
    return static_cast<int>(bytes) / static_cast<int>(kBytes);
  };
  return {.intra = messages(within), .inter = messages(between)};
}

TEST(SplitTransportTest, ByWhetherItStaysInTheNode) {
  const Sent sent = all_to_all(true);
  EXPECT_EQ(sent.intra, 4);
  EXPECT_EQ(sent.inter, 8);
}

TEST(SplitTransportTest, BetweenNodesUntilTheyAreKnown) {
  const Sent sent = all_to_all(false);
  EXPECT_EQ(sent.intra, 0);
  EXPECT_EQ(sent.inter, 12);
}

}  // namespace
}  // namespace cartesian
