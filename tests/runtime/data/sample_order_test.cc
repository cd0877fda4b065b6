#include "runtime/data/sample_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "base/error.h"
#include "runtime/data/token_file_writer.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_directory.h"

namespace cartesian {
namespace {

/// A file of the tokens 0, 1, 2, ... so that a token tells its position.
class Windows : public testing::Test {
 protected:
  TokenFile counting(std::int32_t tokens) {
    std::vector<std::int32_t> ids(static_cast<std::size_t>(tokens));
    std::iota(ids.begin(), ids.end(), 0);
    StagedFiles staged(*files_);
    TokenFileWriter writer(staged, prefix_, 100'000);
    writer.append(ids);
    writer.end_document();
    writer.finish();
    staged.publish();
    return {*files_, prefix_};
  }

  TemporaryDirectory directory_;
  std::unique_ptr<FileSystem> files_ = make_posix_file_system();
  Path prefix_ = directory_ / "data";
};

TEST_F(Windows, OverlapByOneToken) {
  const TokenFile data = counting(12);
  const TokenWindows windows(data, 4);
  EXPECT_EQ(windows.count(), 2);  // tokens 0-4 and 4-8; 9-11 are too few
  std::vector<std::int32_t> ids(4);
  std::vector<std::int32_t> targets(4);
  windows.read(0, ids, targets);
  EXPECT_EQ(ids, (std::vector{0, 1, 2, 3}));
  EXPECT_EQ(targets, (std::vector{1, 2, 3, 4}));
  windows.read(1, ids, targets);
  EXPECT_EQ(ids, (std::vector{4, 5, 6, 7}));
  EXPECT_EQ(targets, (std::vector{5, 6, 7, 8}));
  EXPECT_DEATH(windows.read(2, ids, targets), "window");
}

TEST_F(Windows, CountAtTheEdges) {
  const auto count = [&](std::int32_t tokens, std::int64_t length) {
    const TokenFile data = counting(tokens);
    return TokenWindows(data, length).count();
  };
  EXPECT_EQ(count(5, 4), 1);
  EXPECT_EQ(count(8, 4), 1);
  EXPECT_EQ(count(9, 4), 2);
  EXPECT_EQ(count(2, 1), 1);
}

TEST_F(Windows, NameWhatIsMissing) {
  for (const std::int32_t tokens : {0, 1, 4}) {
    const TokenFile data = counting(tokens);
    expect_error<ConfigError>([&] { TokenWindows(data, 4); },
                              {prefix_.string() + ".bin", "has " + std::to_string(tokens),
                               "sequence_length = 4", "at least 5"});
    expect_error<ConfigError>([&] { TokenWindows(data, 4, "--seq-length"); },
                              {prefix_.string() + ".bin", "--seq-length = 4"});
  }
}

TEST_F(Windows, EveryEpochVisitsEachWindowOnce) {
  const TokenFile data = counting(1001);
  const TokenWindows windows(data, 10);
  const SampleOrder order(windows, 42);
  ASSERT_EQ(windows.count(), 100);
  std::vector<std::vector<std::int64_t>> epochs;
  for (std::int64_t epoch = 0; epoch < 4; ++epoch) {
    std::vector<bool> seen(100);
    auto& visits = epochs.emplace_back();
    for (std::int64_t i = 0; i < 100; ++i) {
      const std::int64_t window = order.window_of(epoch * 100 + i);
      ASSERT_FALSE(seen[static_cast<std::size_t>(window)]);
      seen[static_cast<std::size_t>(window)] = true;
      visits.push_back(window);
    }
    for (std::size_t before = 0; before + 1 < epochs.size(); ++before) {
      EXPECT_NE(epochs[before], visits);
    }
  }
}

TEST_F(Windows, TheStoredOrderIsTheSameInEveryEpoch) {
  const TokenFile data = counting(101);
  const TokenWindows windows(data, 10);
  const SampleOrder order(windows, 42, /*shuffled=*/false);
  for (std::int64_t i = 0; i < 25; ++i) {
    EXPECT_EQ(order.window_of(i), i % 10);
  }
}

TEST_F(Windows, SeedsGiveDifferentOrders) {
  const TokenFile data = counting(1001);
  const TokenWindows windows(data, 10);
  int equal = 0;
  for (std::int64_t i = 0; i < 100; ++i) {
    equal += SampleOrder(windows, 1).window_of(i) == SampleOrder(windows, 2).window_of(i) ? 1 : 0;
  }
  EXPECT_LT(equal, 10);
}

TEST_F(Windows, BatchesDoNotDependOnHowTheyAreCut) {
  const TokenFile data = counting(101);
  const TokenWindows windows(data, 10);
  const SampleOrder order(windows, 7);
  constexpr std::size_t kSequences = 24;  // more than two epochs
  std::vector<std::int32_t> ids(kSequences * 10);
  std::vector<std::int32_t> targets(kSequences * 10);
  order.fill(0, kSequences, ids, targets);
  for (std::size_t i = 0; i < kSequences; ++i) {
    std::vector<std::int32_t> one(10);
    std::vector<std::int32_t> one_targets(10);
    order.fill(static_cast<std::int64_t>(i), 1, one, one_targets);
    EXPECT_TRUE(std::equal(one.begin(), one.end(), ids.begin() + static_cast<long>(i) * 10));
    EXPECT_EQ(one[0], order.window_of(static_cast<std::int64_t>(i)) * 10);
    for (std::size_t t = 0; t < 10; ++t) {
      EXPECT_EQ(targets[i * 10 + t], ids[i * 10 + t] + 1);
    }
  }
  order.fill(3, 0, {}, {});
}

}  // namespace
}  // namespace cartesian
