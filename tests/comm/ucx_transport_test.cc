// What the ucx transport promises beyond the suite that every transport passes: ranks as threads.
// tests/comm/mpi_failure_test.py does the same with processes that die.

#include "comm/ucx_transport.h"

#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <ctime>
#include <string>
#include <thread>

#include "base/error.h"
#include "comm/collectives.h"
#include "comm/local_transport.h"
#include "tests/comm/rank_harness.h"

namespace cartesian {
namespace {

using namespace std::chrono_literals;
using testing_ranks::run_ranks;
using Buffer = std::array<std::byte, 16>;

Seconds cpu_time() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

/// What a wait for a message from `peer` throws, or "".
std::string error_of_receiving(Transport& transport, int peer) {
  Buffer buffer{};
  try {
    transport.exchange({{"dispatch", 3}, {}, {{peer, buffer}}});
    return "";
  } catch (const CommError& error) {
    return error.what();
  }
}

/// Runs `body` on two ranks, which are expected to part without finish().
void run_two_that_fail(const std::function<void(Transport&)>& body) {
  run_local_ranks(2, [&body](Transport& local) {
    const auto transport = make_ucx_transport(*make_bootstrap(local), {.timeout = Seconds(60)});
    body(*transport);
  });
}

TEST(UcxTransport, RanksThatComputeOrWaitUseNoProcessor) {
  run_ranks(2, [](Transport& transport) {
    barrier(transport);
    const Seconds before = cpu_time();
    if (transport.rank() == 0) {
      std::this_thread::sleep_for(500ms);  // for a compute thread that is busy elsewhere
    }
    barrier(transport);
    EXPECT_LT((cpu_time() - before).count(), 0.2);
  });
}

TEST(UcxTransport, TheDeadlineEndsAWaitAndIsToldToThePeer) {
  run_two_that_fail([](Transport& transport) {
    if (transport.rank() == 0) {
      transport.set_timeout(Seconds(0.05));
      const std::string error = error_of_receiving(transport, 1);
      EXPECT_EQ(error, "rank 0 (" + transport.host() +
                           "): no answer from rank 1 within 0.05 s in dispatch of layer 3");
      transport.abort(error);
    } else {
      EXPECT_EQ(error_of_receiving(transport, 0),
                "rank 1 (" + transport.host() +
                    "): rank 0 failed in dispatch of layer 3: rank 0 (" + transport.host() +
                    "): no answer from rank 1 within 0.05 s in dispatch of layer 3");
      transport.abort("told");
    }
  });
}

TEST(UcxTransport, SetTimeoutShortensAWaitInProgress) {
  run_two_that_fail([](Transport& transport) {
    if (transport.rank() == 1) {
      EXPECT_NE(error_of_receiving(transport, 0), "");
      return;
    }
    transport.set_timeout(Seconds(1e6));
    std::thread stopper([&transport] {
      std::this_thread::sleep_for(50ms);
      transport.set_timeout(Seconds(0.001));
    });
    EXPECT_NE(error_of_receiving(transport, 1).find("within 0.001 s"), std::string::npos);
    stopper.join();
  });
}

TEST(UcxTransport, ARankThatEndsWithoutFinishingHasFailed) {
  run_two_that_fail([](Transport& transport) {
    if (transport.rank() == 0) {
      EXPECT_NE(error_of_receiving(transport, 1)
                    .find("rank 1 failed in dispatch of layer 3: it ended without finishing"),
                std::string::npos);
    }
  });
}

TEST(UcxTransport, PostedGroupsAreDoneOnceAPeerHasFailed) {
  run_two_that_fail([](Transport& transport) {
    Buffer buffer{};
    if (transport.rank() == 0) {
      const auto request = transport.post({{"combine"}, {}, {{1, buffer}}});
      while (!request->done()) {
        std::this_thread::sleep_for(1ms);
      }
      EXPECT_THROW(request->wait(), CommError);
    } else {
      transport.abort("no space left on device");
    }
  });
}

/// Gathers what the local transport gathers, but one rank's contribution is a refusal.
class OneRankFails final : public Bootstrap {
 public:
  explicit OneRankFails(Transport& local) : local_(local), inner_(make_bootstrap(local)) {}
  int rank() const override { return local_.rank(); }
  int size() const override { return local_.size(); }
  std::vector<std::string> all_gather(std::string_view mine, Seconds timeout) override {
    return inner_->all_gather(rank() == 1 ? "-rank 1: no device" : mine, timeout);
  }

 private:
  Transport& local_;
  std::unique_ptr<Bootstrap> inner_;
};

TEST(UcxTransport, WhereOneRankCannotStartNoneDoes) {
  run_local_ranks(3, [](Transport& local) {
    OneRankFails bootstrap(local);
    try {
      make_ucx_transport(bootstrap);
      FAIL() << "nothing was thrown";
    } catch (const CommError& error) {
      EXPECT_STREQ(error.what(), "rank 1: no device");
    }
  });
}

TEST(UcxTransport, TheBootstrapHasADeadline) {
  const auto ranks = make_local_transports(2);
  EXPECT_THROW(make_ucx_transport(*make_bootstrap(*ranks[0]), {.timeout = Seconds(0.05)}),
               CommError);
}

}  // namespace
}  // namespace cartesian
