#include "runtime/top/scrape_loop.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <memory>
#include <vector>

#include "tests/runtime/top/one_answer.h"

namespace cartesian {
namespace {

constexpr Seconds kAges{600};
constexpr Seconds kSoon{0.001};

class ScrapeLoopTest : public testing::Test {
 protected:
  /// The first that comes.
  static Scrape first(ScrapeLoop& loop) {
    pollfd ready{loop.ready_fd(), POLLIN, 0};
    EXPECT_EQ(poll(&ready, 1, /*timeout=*/60'000), 1);
    std::vector<Scrape> scrapes = loop.take();
    EXPECT_FALSE(scrapes.empty());
    return scrapes.empty() ? Scrape(JobEnded{}) : scrapes.front();
  }

  std::unique_ptr<FileSystem> files_ = make_posix_file_system();
  SteadyClock clock_;
};

TEST_F(ScrapeLoopTest, NobodyAnswers) {
  const MetricsAddress address = nobody();
  const MetricsTarget target(*files_, address.text());
  MetricsSource source(target, clock_);
  ScrapeLoop loop(source, kSoon);
  const Scrape scrape = first(loop);
  ASSERT_TRUE(std::holds_alternative<ScrapeFailed>(scrape));
  EXPECT_EQ(std::get<ScrapeFailed>(scrape).why,
            "no answer from " + address.text() + ": connection refused");
}

TEST_F(ScrapeLoopTest, ARunDirectoryWithoutAddressHasEnded) {
  const MetricsTarget target(*files_, testing::TempDir());
  MetricsSource source(target, clock_);
  ScrapeLoop loop(source, kSoon);
  EXPECT_TRUE(std::holds_alternative<JobEnded>(first(loop)));
}

TEST_F(ScrapeLoopTest, EndsWhileAnAnswerIsAwaited) {
  OneAnswer server("HTTP/1.1 200 OK\r\n", /*hold=*/true);
  const MetricsTarget target(*files_, server.address().text());
  MetricsSource source(target, clock_, {.timeout = kAges});
  { const ScrapeLoop loop(source, kSoon); }
}

TEST_F(ScrapeLoopTest, EndsBetweenReadings) {
  const MetricsTarget target(*files_, nobody().text());
  MetricsSource source(target, clock_);
  { const ScrapeLoop loop(source, kAges); }
}

}  // namespace
}  // namespace cartesian
