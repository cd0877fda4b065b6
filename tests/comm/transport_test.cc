// What every transport promises (comm/transport.h), while all goes well.

#include "comm/transport.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <thread>

#include "base/topology.h"
#include "tests/comm/rank_harness.h"

namespace cartesian {
namespace {

using testing_ranks::RankTest;

using Words = std::vector<std::uint32_t>;

std::span<const std::byte> bytes(const Words& words) { return std::as_bytes(std::span(words)); }
std::span<std::byte> bytes(Words& words) { return std::as_writable_bytes(std::span(words)); }

/// Contents that name sender, receiver and number.
Words message(int from, int to, int number, std::size_t size) {
  Words words(size);
  std::iota(words.begin(), words.end(),
            static_cast<std::uint32_t>(from * 1000003 + to * 10007 + number * 101));
  return words;
}

class TransportTest : public RankTest {};
INSTANTIATE_TEST_SUITE_P(Sizes, TransportTest, ::testing::ValuesIn(testing_ranks::job_sizes()),
                         testing_ranks::size_name);

TEST_P(TransportTest, KnowsRankSizeAndHost) {
  run([this](Transport& transport) {
    EXPECT_EQ(transport.size(), GetParam());
    EXPECT_GE(transport.rank(), 0);
    EXPECT_LT(transport.rank(), transport.size());
    EXPECT_FALSE(transport.host().empty());
  });
}

TEST_P(TransportTest, AllToAllWithSelfAndUnevenSizes) {
  run([](Transport& transport) {
    const int me = transport.rank();
    const auto length = [](int from, int to) {
      return static_cast<std::size_t>((from * 7 + to * 3) % 5 * 1000);
    };
    std::vector<Words> sent;
    std::vector<Words> received;
    for (int peer = 0; peer < transport.size(); ++peer) {
      sent.push_back(message(me, peer, 0, length(me, peer)));
      received.emplace_back(length(peer, me));
    }
    MessageGroup group{{"all_to_all", 3}, {}, {}};
    for (int peer = 0; peer < transport.size(); ++peer) {
      const auto p = static_cast<std::size_t>(peer);
      group.sends.push_back({peer, bytes(sent[p])});
      group.recvs.push_back({peer, bytes(received[p])});
    }
    transport.exchange(std::move(group));
    for (int peer = 0; peer < transport.size(); ++peer) {
      EXPECT_EQ(received[static_cast<std::size_t>(peer)], message(peer, me, 0, length(peer, me)));
    }
  });
}

TEST_P(TransportTest, MessagesOfAPairArriveInTheOrderPosted) {
  constexpr int kMessages = 50;
  run([](Transport& transport) {
    const int next = (transport.rank() + 1) % transport.size();
    const int previous = (transport.rank() + transport.size() - 1) % transport.size();
    std::vector<Words> sent;
    std::vector<Words> received;
    for (int i = 0; i < kMessages; ++i) {
      const auto size = static_cast<std::size_t>(1 + i * i * 7 % 3000);
      sent.push_back(message(transport.rank(), next, i, size));
      received.emplace_back(size);
    }
    // The same messages, cut into groups differently on the two sides.
    std::vector<std::unique_ptr<Request>> requests;
    for (std::size_t i = 0; i < kMessages; i += 5) {
      MessageGroup recvs{{"ordering"}, {}, {}};
      MessageGroup sends{{"ordering"}, {}, {}};
      for (std::size_t j = i; j < i + 5; ++j) {
        recvs.recvs.push_back({previous, bytes(received[j])});
        sends.sends.push_back({next, bytes(sent[j])});
      }
      requests.push_back(transport.post(std::move(sends)));
      requests.push_back(transport.post(std::move(recvs)));
    }
    // Any order of waiting will do.
    for (auto request = requests.rbegin(); request != requests.rend(); ++request) {
      (*request)->wait();
      EXPECT_TRUE((*request)->done());
      (*request)->wait();
    }
    for (int i = 0; i < kMessages; ++i) {
      const auto m = static_cast<std::size_t>(i);
      EXPECT_EQ(received[m], message(previous, transport.rank(), i, received[m].size()));
    }
  });
}

TEST_P(TransportTest, ManyGroupsInFlightFinishWithoutTheirWaits) {
  constexpr int kGroups = 200;
  run([](Transport& transport) {
    const int me = transport.rank();
    std::vector<std::vector<Words>> sent(kGroups);
    std::vector<std::vector<Words>> received(kGroups);
    std::vector<std::unique_ptr<Request>> requests;
    for (int g = 0; g < kGroups; ++g) {
      const auto index = static_cast<std::size_t>(g);
      const auto size = static_cast<std::size_t>(g % 7 * 100);
      MessageGroup group{{"many", g}, {}, {}};
      for (int peer = 0; peer < transport.size(); ++peer) {
        sent[index].push_back(message(me, peer, g, size));
        received[index].emplace_back(size);
      }
      for (std::size_t p = 0; p < sent[index].size(); ++p) {
        group.sends.push_back({static_cast<int>(p), bytes(sent[index][p])});
        group.recvs.push_back({static_cast<int>(p), bytes(received[index][p])});
      }
      requests.push_back(transport.post(std::move(group)));
    }
    requests.back()->wait();
    requests.back().reset();
    for (int g = 0; g < kGroups - 1; ++g) {
      requests[static_cast<std::size_t>(g)]->wait();
      for (int peer = 0; peer < transport.size(); ++peer) {
        const Words& words = received[static_cast<std::size_t>(g)][static_cast<std::size_t>(peer)];
        EXPECT_EQ(words, message(peer, me, g, words.size()));
      }
    }
  });
}

TEST_P(TransportTest, LargeMessagesProgressWithoutTheThreadThatPosted) {
  run([](Transport& transport) {
    const int next = (transport.rank() + 1) % transport.size();
    const int previous = (transport.rank() + transport.size() - 1) % transport.size();
    constexpr std::size_t kWords = 3'000'001;
    const Words sent = message(transport.rank(), next, 1, kWords);
    Words received(kWords);
    const auto request =
        transport.post({{"large"}, {{next, bytes(sent)}}, {{previous, bytes(received)}}});
    // done() alone does not have to move bytes, and nobody waits: the backend must.
    while (!request->done()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    request->wait();
    EXPECT_EQ(received, message(previous, transport.rank(), 1, kWords));
  });
}

TEST_P(TransportTest, EmptyGroupsAndEmptyMessagesAreDone) {
  run([](Transport& transport) {
    transport.exchange({{"empty"}, {}, {}});
    const int next = (transport.rank() + 1) % transport.size();
    transport.exchange({{"empty"}, {{next, {}}}, {}});
    const auto request = transport.post({{"empty"}, {{next, {}}}, {{next, {}}}});
    EXPECT_TRUE(request->done());
    request->wait();
  });
}

TEST_P(TransportTest, CountsBytesByScope) {
  run([](Transport& transport) {
    // Only that a topology of the right size is taken: the counts are TrafficCounter's test.
    transport.set_topology(
        Topology::single_node(transport.size()),
        std::vector<std::string>(static_cast<std::size_t>(transport.size()), "host"));
    const int next = (transport.rank() + 1) % transport.size();
    const int previous = (transport.rank() + transport.size() - 1) % transport.size();
    const Words sent(10);
    Words received(10);
    transport.exchange({{"counted"}, {{next, bytes(sent)}}, {{previous, bytes(received)}}});
  });
}

}  // namespace
}  // namespace cartesian
