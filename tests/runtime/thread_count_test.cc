#include "runtime/thread_count.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <vector>

#include "tests/comm/rank_harness.h"

namespace cartesian {
namespace {

constexpr auto kVariable = "OMP_NUM_THREADS";

std::vector<int> allowed_processors() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  EXPECT_EQ(sched_getaffinity(0, sizeof allowed, &allowed), 0);
  std::vector<int> processors;
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(i, &allowed)) {
      processors.push_back(i);
    }
  }
  return processors;
}

void bind_this_thread(int processor) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(processor, &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
}

class ThreadCount : public ::testing::Test {
 protected:
  void SetUp() override { unsetenv(kVariable); }
  void TearDown() override { unsetenv(kVariable); }

  /// Of each of `ranks` ranks, after `prepare` in its thread.
  static std::vector<int> counts(
      int ranks, std::int64_t configured = 0,
      const std::function<void(int)>& prepare = [](int) {}) {
    std::vector<int> found(static_cast<std::size_t>(ranks));
    testing_ranks::run_ranks(ranks, [&](Transport& transport) {
      prepare(transport.rank());
      found[static_cast<std::size_t>(transport.rank())] = threads_per_rank(transport, configured);
    });
    return found;
  }

  const int processors_ = static_cast<int>(allowed_processors().size());
};

TEST_F(ThreadCount, RanksShareTheProcessorsOfTheirHost) {
  EXPECT_EQ(counts(1), std::vector<int>{processors_});
  EXPECT_EQ(counts(2), std::vector<int>(2, std::max(1, processors_ / 2)));
  const int many = processors_ + 1;
  EXPECT_EQ(counts(many), std::vector<int>(static_cast<std::size_t>(many), 1));
  EXPECT_EQ(threads_of_process(), processors_);
}

TEST_F(ThreadCount, ABoundRankHasItsProcessorsAlone) {
  const int first = allowed_processors()[0];
  const auto bind_rank_0 = [&](int rank) {
    if (rank == 0) {
      bind_this_thread(first);
    }
  };
  const int others = processors_ == 1 ? 1 : std::max(1, processors_ / 2);
  EXPECT_EQ(counts(3, 0, bind_rank_0), (std::vector<int>{1, others, others}));
}

TEST_F(ThreadCount, OpenMpsVariableCounts) {
  setenv(kVariable, "5,2", 1);
  EXPECT_EQ(counts(2), std::vector<int>(2, 5));
  EXPECT_EQ(threads_of_process(), 5);
  for (const char* const not_a_number : {"", "0", "-3", "many"}) {
    setenv(kVariable, not_a_number, 1);
    EXPECT_EQ(counts(1), std::vector<int>{processors_}) << not_a_number;
  }
}

TEST_F(ThreadCount, TheConfigurationCountsMost) {
  setenv(kVariable, "5", 1);
  EXPECT_EQ(counts(2, 3), std::vector<int>(2, 3));
}

}  // namespace
}  // namespace cartesian
