#include "runtime/top/live_view.h"

#include <gtest/gtest.h>

#include "tests/runtime/top/job_readings.h"

namespace cartesian {
namespace {

constexpr ScreenSize kSize{.width = 100};

TEST(LiveView, ShowsTheLastReading) {
  FakeClock clock;
  LiveView view({.title = "host:9400", .trouble = "", .total_steps = {}}, clock);
  EXPECT_TRUE(view.take(job_reading(40, 0)));
  EXPECT_TRUE(view.take(job_reading(50, 4)));
  const auto lines = view.lines(kSize, false);
  EXPECT_EQ(lines[0], "cartesian 0.1.0   host:9400");
  EXPECT_TRUE(lines[1].starts_with("step 50, "));
}

TEST(LiveView, TroubleIsToldWithItsAgeUntilItIsOver) {
  FakeClock clock;
  LiveView view({.title = "host:9400", .trouble = "", .total_steps = {}}, clock);
  view.take(job_reading(40, 0));
  clock.advance(Seconds(4));
  EXPECT_TRUE(view.take(ScrapeFailed{"no answer from host:9400: connection refused"}));
  clock.advance(Seconds(2));
  auto lines = view.lines(kSize, false);
  EXPECT_EQ(lines[1], "nothing new for 6s: no answer from host:9400: connection refused");
  EXPECT_TRUE(lines[2].starts_with("step 40, "));
  view.take(job_reading(41, 6));
  lines = view.lines(kSize, false);
  EXPECT_TRUE(lines[1].starts_with("step 41, "));
}

TEST(LiveView, EndsWithTheJob) {
  FakeClock clock;
  LiveView view({}, clock);
  view.take(job_reading(40, 0));
  EXPECT_FALSE(view.take(JobEnded{}));
}

}  // namespace
}  // namespace cartesian
