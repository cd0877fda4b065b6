// A rank that fails at any group of messages of a training step: every other rank's step ends with
// an error that names it. Ranks as threads; phase_failure_test.py kills processes.

#include <gtest/gtest.h>

#include <mutex>

#include "base/error.h"
#include "comm/local_transport.h"
#include "tests/runtime/train/failing_step.h"

namespace cartesian::test {
namespace {

/// What the ranks that did not fail were told.
std::vector<std::string> errors_of(int at) {
  std::mutex mutex;
  std::vector<std::string> errors;
  const auto body = [&](Transport& transport) {
    try {
      run_failing_step(transport, at, [] { throw Error("no space left on device"); });
    } catch (const std::exception& error) {
      if (transport.rank() != kFailingRanks - 1) {
        const std::lock_guard lock(mutex);
        errors.emplace_back(error.what());
      }
      throw;
    }
  };
  EXPECT_THROW(run_local_ranks(kFailingRanks, body, {.timeout = Seconds(60)}), Error);
  return errors;
}

TEST(PhaseFailureTest, EveryRankIsTold) {
  std::vector<std::string> phases;
  run_local_ranks(kFailingRanks, [&](Transport& transport) {
    const std::vector<std::string> of_rank = run_failing_step(transport, -1, [] {});
    if (transport.rank() == kFailingRanks - 1) {
      phases = of_rank;
    }
  });
  ASSERT_GT(phases.size(), 30U);
  for (std::size_t at = 0; at < phases.size(); ++at) {
    SCOPED_TRACE("group " + std::to_string(at) + ": " + phases[at]);
    const std::vector<std::string> errors = errors_of(static_cast<int>(at));
    EXPECT_EQ(errors.size(), 3U);
    for (const std::string& error : errors) {
      EXPECT_NE(error.find("rank 3 failed in "), std::string::npos) << error;
      EXPECT_NE(error.find("no space left on device"), std::string::npos) << error;
    }
  }
}

}  // namespace
}  // namespace cartesian::test
