#include "base/metrics.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "base/clock.h"

namespace cartesian {
namespace {

TEST(Metrics, CountersKeepTheirIdentity) {
  Metrics metrics;
  Counter& bytes = metrics.counter("cartesian_bytes_total{scope=\"inter\"}");
  bytes.add(3);
  metrics.counter("cartesian_bytes_total{scope=\"inter\"}").add(4.5);
  EXPECT_EQ(&bytes, &metrics.counter("cartesian_bytes_total{scope=\"inter\"}"));
  metrics.counter("cartesian_other_total").add(1);
  const std::map<std::string, double> expected = {{"cartesian_bytes_total{scope=\"inter\"}", 7.5},
                                                  {"cartesian_other_total", 1.0}};
  EXPECT_EQ(metrics.counters(), expected);
}

TEST(Metrics, HistogramBucketsIncludeTheirUpperBound) {
  Metrics metrics;
  Histogram& histogram = metrics.histogram("h", {1.0, 2.0, 5.0});
  for (const double value : {0.0, 1.0, 1.5, 2.0, 5.0, 5.1, 100.0}) {
    histogram.observe(value);
  }
  EXPECT_EQ(histogram.bucket(0), 2);
  EXPECT_EQ(histogram.bucket(1), 2);
  EXPECT_EQ(histogram.bucket(2), 1);
  EXPECT_EQ(histogram.bucket(3), 2);
  EXPECT_EQ(histogram.count(), 7);
  EXPECT_DOUBLE_EQ(histogram.sum(), 114.6);
  EXPECT_EQ(&histogram, &metrics.histogram("h", {9.0}));
  EXPECT_EQ(histogram.bounds().size(), 3U);

  const Histogram copy = histogram;
  histogram.observe(1.5);
  EXPECT_EQ(copy.bucket(1), 2);
  EXPECT_EQ(copy.bucket(3), 2);
  EXPECT_EQ(copy.count(), 7);
  EXPECT_DOUBLE_EQ(copy.sum(), 114.6);
}

TEST(Metrics, ThreadsLoseNoCounts) {
  Metrics metrics;
  constexpr int kThreads = 4;
  constexpr int kAdds = 10'000;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < kAdds; ++i) {
        metrics.counter("c").add(1);
        metrics.histogram("h", {0.5}).observe(1);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(metrics.counter("c").value(), kThreads * kAdds);
  EXPECT_EQ(metrics.histogram("h", {}).count(), kThreads * kAdds);
}

TEST(FakeClock, StandsStillUntilAdvanced) {
  FakeClock clock;
  const Seconds start = clock.now();
  EXPECT_EQ(clock.now(), start);
  clock.advance(Seconds(1.5));
  EXPECT_EQ(clock.now() - start, Seconds(1.5));
}

}  // namespace
}  // namespace cartesian
