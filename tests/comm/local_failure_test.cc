// How waits end when something goes wrong, with ranks as threads. tests/comm/mpi_failure_test.py
// does the same with processes.

#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <string>
#include <thread>

#include "base/error.h"
#include "base/topology.h"
#include "comm/collectives.h"
#include "comm/local_transport.h"

namespace cartesian {
namespace {

using Buffer = std::array<std::byte, 16>;

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// What a wait for a message from `peer` throws, or "".
std::string error_of_receiving(Transport& transport, std::vector<int> peers, CommPhase phase) {
  std::vector<Buffer> buffers(peers.size());
  MessageGroup group{phase, {}, {}};
  for (std::size_t i = 0; i < peers.size(); ++i) {
    group.recvs.push_back({peers[i], buffers[i]});
  }
  try {
    transport.exchange(std::move(group));
    return "";
  } catch (const CommError& error) {
    return error.what();
  }
}

TEST(LocalFailure, DeadlineNamesRankPeersPhaseAndLayer) {
  const auto ranks = make_local_transports(4, {.timeout = Seconds(0.02)});
  EXPECT_EQ(error_of_receiving(*ranks[0], {2}, {"dispatch", 3}),
            "rank 0 (" + ranks[0]->host() +
                "): no answer from rank 2 within 0.02 s in dispatch of layer 3");
  EXPECT_PRED2(contains, error_of_receiving(*ranks[1], {3, 0, 2, 3}, {"barrier"}),
               "no answer from ranks 0, 2, 3 within 0.02 s in barrier");
}

TEST(LocalFailure, OnlyPeersThatAreStillPendingAreNamed) {
  const auto ranks = make_local_transports(3, {.timeout = Seconds(0.02)});
  Buffer buffer{};
  const auto sent = ranks[1]->post({{"dispatch"}, {{0, buffer}}, {}});
  EXPECT_PRED2(contains, error_of_receiving(*ranks[0], {1, 2}, {"dispatch"}),
               "no answer from rank 2 within");
  sent->wait();
}

TEST(LocalFailure, WhatWasTakenBackIsNotReplacedByTheNextMessage) {
  const auto ranks = make_local_transports(2, {.timeout = Seconds(0.02)});
  Buffer buffer{};
  auto first = ranks[1]->post({{"plan"}, {{0, buffer}}, {}});
  const auto second = ranks[1]->post({{"dispatch"}, {{0, std::span(buffer).first(1)}}, {}});
  first.reset();
  EXPECT_PRED2(contains, error_of_receiving(*ranks[0], {1}, {"plan"}),
               "no answer from rank 1 within 0.02 s in plan");
}

TEST(LocalFailure, AbortEndsTheWaitsOfAllOthersWithItsCause) {
  constexpr int kRanks = 4;
  const auto transports = make_local_transports(kRanks);
  std::array<std::string, kRanks> errors;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < kRanks - 1; ++rank) {
    threads.emplace_back([&, rank] {
      const auto r = static_cast<std::size_t>(rank);
      errors[r] = error_of_receiving(*transports[r], {(rank + 1) % 3}, {"combine", 3});
    });
  }
  transports[3]->abort("no space left on device");
  for (std::thread& thread : threads) {
    thread.join();
  }
  for (std::size_t rank = 0; rank < kRanks - 1; ++rank) {
    EXPECT_EQ(errors[rank], "rank " + std::to_string(rank) + " (" + transports[0]->host() +
                                "): rank 3 failed in combine of layer 3: no space left on device; "
                                "this rank was waiting for rank " +
                                std::to_string((rank + 1) % 3));
  }
}

TEST(LocalFailure, HostsAndStepAreNamedOnceTheyAreKnown) {
  const auto ranks = make_local_transports(2, {.timeout = Seconds(0.02)});
  ranks[0]->set_topology(Topology(std::vector<int>{0, 1}), {"hostA", "hostB"});
  ranks[0]->set_step(12);
  const std::string site = "rank 0 (" + ranks[0]->host() + "): ";
  EXPECT_EQ(error_of_receiving(*ranks[0], {1}, {"combine", 3}),
            site + "no answer from rank 1 (hostB) within 0.02 s in combine of layer 3 at step 12");
  ranks[0]->set_step(-1);
  ranks[1]->abort("no space left on device");
  EXPECT_EQ(error_of_receiving(*ranks[0], {1}, {"combine", 3}),
            site + "rank 1 (hostB) failed in combine of layer 3: no space left on device");
}

TEST(LocalFailure, TheFirstFailureIsTheOneThatIsTold) {
  const auto ranks = make_local_transports(3);
  ranks[2]->abort("the cause");
  ranks[1]->abort("rank 1: rank 2 failed: the cause");
  EXPECT_PRED2(contains, error_of_receiving(*ranks[0], {1}, {"combine"}),
               "rank 2 failed in combine: the cause");
}

TEST(LocalFailure, ARankThatEndsWithoutFinishingHasFailed) {
  auto ranks = make_local_transports(2);
  ranks[1].reset();
  EXPECT_PRED2(contains, error_of_receiving(*ranks[0], {1}, {"dispatch", 0}),
               "rank 1 failed in dispatch of layer 0: it ended without finishing");
}

TEST(LocalFailure, RunLocalRanksThrowsWhatFailedFirst) {
  const auto body = [](Transport& transport) {
    if (transport.rank() == 2) {
      throw FormatError("data.bin: truncated");
    }
    barrier(transport);
  };
  try {
    run_local_ranks(4, body);
    FAIL() << "nothing was thrown";
  } catch (const FormatError& error) {
    EXPECT_STREQ(error.what(), "data.bin: truncated");
  }
}

TEST(LocalFailure, SizesThatDifferAreReportedOnBothSides) {
  const auto ranks = make_local_transports(2);
  Buffer buffer{};
  const auto sent = ranks[1]->post({{"dispatch", 1}, {{0, std::span(buffer).first(8)}}, {}});
  EXPECT_PRED2(contains, error_of_receiving(*ranks[0], {1}, {"dispatch", 1}),
               "rank 1 sent 8 bytes where 16 were expected in dispatch of layer 1");
  EXPECT_THROW(sent->wait(), CommError);
}

TEST(LocalFailure, SetTimeoutShortensAWaitInProgress) {
  const auto ranks = make_local_transports(2, {.timeout = Seconds(1e6)});
  std::thread stopper([&ranks] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    ranks[0]->set_timeout(Seconds(0.001));
  });
  EXPECT_PRED2(contains, error_of_receiving(*ranks[0], {1}, {"plan"}), "within 0.001 s in plan");
  stopper.join();
}

TEST(LocalFailure, AFailedWaitLeavesTheBuffersAlone) {
  const auto ranks = make_local_transports(2, {.timeout = Seconds(0.01)});
  Buffer target{};
  try {
    ranks[0]->exchange({{"plan"}, {}, {{1, target}}});
    FAIL() << "nothing was thrown";
  } catch (const CommError&) {
  }
  Buffer late;
  late.fill(std::byte{7});
  const auto sent = ranks[1]->post({{"plan"}, {{0, late}}, {}});
  EXPECT_FALSE(sent->done());
  EXPECT_EQ(target, Buffer{});
}

TEST(LocalFailure, ADestroyedRequestIsWithdrawn) {
  const auto ranks = make_local_transports(2, {.timeout = Seconds(0.01)});
  {
    Buffer gone{};
    static_cast<void>(ranks[0]->post({{"plan"}, {{1, gone}}, {}}));
  }
  EXPECT_PRED2(contains, error_of_receiving(*ranks[1], {0}, {"plan"}), "no answer from rank 0");
}

TEST(LocalFailure, ACommErrorInsideAgreeIsThrownOn) {
  const auto ranks = make_local_transports(2);
  EXPECT_THROW(agree(*ranks[0], {"reading"}, [] { throw CommError("rank 1 is gone"); }), CommError);
}

}  // namespace
}  // namespace cartesian
