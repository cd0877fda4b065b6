#include "runtime/stop_signal.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <thread>

namespace cartesian {
namespace {

using namespace std::chrono_literals;

/// Sends the process `signal`, waits for what it does, and ends with 3 if it did nothing.
[[noreturn]] void send_and_outlive(int signal, std::chrono::milliseconds patience) {
  kill(getpid(), signal);
  std::this_thread::sleep_for(patience);
  std::_Exit(3);
}

TEST(StopSignalDeathTest, EndsTheProcessWhereNobodyCanStop) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        const StopSignal stop;
        send_and_outlive(SIGTERM, 60s);
      },
      testing::ExitedWithCode(128 + SIGTERM), "");
}

TEST(StopSignalDeathTest, ChangesNothingOnceTheProcessHasItsExitCode) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        StopSignal stop;
        stop.settle();
        send_and_outlive(SIGTERM, 300ms);
      },
      testing::ExitedWithCode(3), "");
}

TEST(StopSignalDeathTest, IsARequestWithinAScope) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        StopSignal stop;
        StopScope scope(stop);
        kill(getpid(), SIGUSR1);
        while (!stop.requested()) {
          std::this_thread::sleep_for(1ms);
        }
        bool called = false;  // though it comes after the request
        scope.set_callback([&] { called = true; });
        std::_Exit(called ? 4 : 5);
      },
      testing::ExitedWithCode(4), "");
}

}  // namespace
}  // namespace cartesian
