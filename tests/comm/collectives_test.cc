#include "comm/collectives.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <thread>

#include "base/error.h"
#include "tests/comm/contributions.h"
#include "tests/comm/rank_harness.h"

namespace cartesian {
namespace {

using testing_ranks::contribution;
using testing_ranks::RankContext;
using testing_ranks::RankTest;

class CollectivesTest : public RankTest {};
INSTANTIATE_TEST_SUITE_P(Sizes, CollectivesTest, ::testing::ValuesIn(testing_ranks::job_sizes()),
                         testing_ranks::size_name);

/// The contract word for word: added in rank order in the type of the data.
template <class T>
T expected_sum(const Team& team, std::size_t i) {
  T sum = contribution<T>(team.ranks.front(), i);
  for (std::size_t r = 1; r < team.ranks.size(); ++r) {
    sum += contribution<T>(team.ranks[r], i);
  }
  return sum;
}

template <class T>
void expect_all_reduce(Transport& transport, const Team& team, std::size_t size) {
  RankContext rank;
  std::vector<T> data(size);
  for (std::size_t i = 0; i < size; ++i) {
    data[i] = contribution<T>(transport.rank(), i);
  }
  all_reduce_sum(rank.context, transport, team, std::span<T>(data));
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < size; ++i) {
    wrong += data[i] == expected_sum<T>(team, i) ? 0 : 1;
  }
  EXPECT_EQ(wrong, 0U) << "of " << size << " elements";
}

TEST_P(CollectivesTest, AllReduceSumsInRankOrder) {
  run([](Transport& transport) {
    const Team world = Team::world(transport);
    for (const std::size_t size : {0, 1, 5, 1000, 4096, 4097, 5000, 100'003}) {
      expect_all_reduce<float>(transport, world, size);
      expect_all_reduce<double>(transport, world, size);
    }
  });
}

TEST_P(CollectivesTest, AllReduceOfThreeSegments) {
  run([](Transport& transport) {
    expect_all_reduce<float>(transport, Team::world(transport), (std::size_t{1} << 22) + 13);
  });
}

TEST_P(CollectivesTest, SharesAreReducedAndGathered) {
  run([](Transport& transport) {
    RankContext rank;
    const auto ranks = static_cast<std::size_t>(transport.size());
    const auto me = static_cast<std::size_t>(transport.rank());
    for (const std::size_t size : {1, 7, 5000, (1 << 20) + 13}) {
      Shares shares{Team::world(transport), {}};
      for (std::size_t r = 0; r <= ranks; ++r) {
        shares.bounds.push_back(r == ranks ? size : size * r * r / ranks / ranks);  // uneven
      }
      std::vector<float> data(size);
      for (std::size_t i = 0; i < size; ++i) {
        data[i] = contribution<float>(transport.rank(), i);
      }
      const auto wrong_in = [&](std::size_t begin, std::size_t end, const auto& expected) {
        std::size_t wrong = 0;
        for (std::size_t i = begin; i < end; ++i) {
          wrong += data[i] == expected(i) ? 0 : 1;
        }
        return wrong;
      };
      const auto sum = [&](std::size_t i) { return expected_sum<float>(shares.team, i); };
      const auto mine = [&](std::size_t i) { return contribution<float>(transport.rank(), i); };
      reduce_scatter_sum(rank.context, transport, shares, data);
      EXPECT_EQ(wrong_in(shares.bounds[me], shares.bounds[me + 1], sum), 0U);
      EXPECT_EQ(wrong_in(0, shares.bounds[me], mine), 0U);
      EXPECT_EQ(wrong_in(shares.bounds[me + 1], size, mine), 0U);
      all_gather_shares(transport, shares, data);
      EXPECT_EQ(wrong_in(0, size, sum), 0U) << "of " << size;
    }
  });
}

TEST_P(CollectivesTest, TeamsReduceApart) {
  run([](Transport& transport) {
    Team mine;
    for (int r = transport.rank() % 2; r < transport.size(); r += 2) {
      mine.ranks.push_back(r);
    }
    expect_all_reduce<float>(transport, mine, 100);
    expect_all_reduce<float>(transport, mine, 50'000);
    barrier(transport);
  });
}

TEST_P(CollectivesTest, AllGatherTakesUnevenSizes) {
  run([](Transport& transport) {
    const auto text = [](int r) { return std::string(static_cast<std::size_t>(r % 3 * 50), 'x'); };
    const std::vector<std::string> gathered = all_gather(transport, text(transport.rank()));
    ASSERT_EQ(gathered.size(), static_cast<std::size_t>(transport.size()));
    for (int r = 0; r < transport.size(); ++r) {
      EXPECT_EQ(gathered[static_cast<std::size_t>(r)], text(r));
    }
  });
}

TEST_P(CollectivesTest, BroadcastGivesAllTheRootsBytes) {
  run([](Transport& transport) {
    for (int root = 0; root < transport.size(); ++root) {
      std::string bytes = transport.rank() == root ? "from " + std::to_string(root) : "stale";
      broadcast(transport, root, bytes);
      EXPECT_EQ(bytes, "from " + std::to_string(root));
      std::string nothing = transport.rank() == root ? "" : "stale";
      broadcast(transport, root, nothing);
      EXPECT_EQ(nothing, "");
    }
  });
}

TEST_P(CollectivesTest, AgreeThrowsTheFailedRanksErrorEverywhere) {
  run([](Transport& transport) {
    agree(transport, {"reading"}, [] {});
    const int failing = transport.size() / 2;
    const auto fail_on_one = [&transport, failing] {
      if (transport.rank() == failing) {
        throw FormatError("a.bin: too short");
      }
    };
    try {
      agree(transport, {"reading"}, fail_on_one);
      ADD_FAILURE() << "agree() returned";
    } catch (const FormatError& error) {
      const std::string prefix =
          transport.size() == 1 ? "" : "rank " + std::to_string(failing) + ": ";
      EXPECT_EQ(error.what(), prefix + "a.bin: too short");
    }
    // Afterwards the transport is as good as before.
    agree(transport, {"reading"}, [] {});
  });
}

TEST_P(CollectivesTest, AgreeDoesNotNameARankWhereAllFailAlike) {
  run([](Transport& transport) {
    try {
      agree(transport, {"settings"}, [] { throw ConfigError("train.steps: must be positive"); });
      ADD_FAILURE() << "agree() returned";
    } catch (const ConfigError& error) {
      EXPECT_STREQ(error.what(), "train.steps: must be positive");
    }
  });
}

TEST_P(CollectivesTest, AgreeKeepsTheKindOfError) {
  run([](Transport& transport) {
    const auto run = [&transport](auto error) {
      agree(transport, {"kinds"}, [&error] { throw error; });
    };
    EXPECT_THROW(run(ConfigError("x")), ConfigError);
    EXPECT_THROW(run(FormatError("x")), FormatError);
    EXPECT_THROW(run(FileError("x")), FileError);
    EXPECT_THROW(run(NumericError("x")), NumericError);
    EXPECT_THROW(run(std::runtime_error("x")), Error);
  });
}

TEST_P(CollectivesTest, WorkLongerThanTheDeadlineCanBeAgreedOnPatiently) {
  run([](Transport& transport) {
    if (transport.size() != 4) {
      return;  // one size is enough for what takes its time
    }
    transport.set_timeout(Seconds(3));
    const int slow = transport.size() - 1;
    const auto work = [&transport, slow] {
      if (transport.rank() == slow) {
        std::this_thread::sleep_for(Seconds(4));  // as long as reading a large file takes
      }
    };
    EXPECT_NO_THROW(agree_patiently(transport, {"reading"}, work));
    EXPECT_THROW(agree_patiently(transport, {"reading"},
                                 [&] {
                                   work();
                                   if (transport.rank() == slow) {
                                     throw FormatError("a.bin: too short");
                                   }
                                 }),
                 FormatError);
    transport.set_timeout(Seconds(120));
  });
}

TEST_P(CollectivesTest, GatherBringsEverythingToTheRoot) {
  run([](Transport& transport) {
    for (int root = 0; root < transport.size(); ++root) {
      const std::string mine(static_cast<std::size_t>(transport.rank()), 'x');
      const std::vector<std::string> all = gather(transport, root, mine);
      ASSERT_EQ(all.size(),
                transport.rank() == root ? static_cast<std::size_t>(transport.size()) : 0U);
      for (std::size_t r = 0; r < all.size(); ++r) {
        EXPECT_EQ(all[r], std::string(r, 'x'));
      }
    }
  });
}

TEST_P(CollectivesTest, NobodyLeavesABarrierBeforeAllHaveCome) {
  run([](Transport& transport) {
    for (int i = 0; i < 20; ++i) {
      barrier(transport);
    }
  });
}

}  // namespace
}  // namespace cartesian
