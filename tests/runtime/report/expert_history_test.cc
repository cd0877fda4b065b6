#include "runtime/report/expert_history.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace cartesian {
namespace {

/// `records` records of `layers` layers of 2 x `experts` experts, pairs in every `pairs_every`th.
ExpertRecords records_of(std::int64_t records, std::int64_t layers, std::int64_t experts,
                         std::int64_t pairs_every = 2) {
  ExpertRecords all{.layers = layers, .groups = 2, .experts = experts, .records = {}};
  for (std::int64_t i = 1; i <= records; ++i) {
    ExpertRecord record{.step = 5 * i, .steps = 5, .loads = {}, .pair_steps = 0, .pairs = {}};
    record.loads.assign(static_cast<std::size_t>(layers * 2 * experts), 10);
    record.loads[0] = 0;
    if (i % pairs_every == 0) {
      record.pair_steps = 5 * pairs_every;
      record.pairs.assign(static_cast<std::size_t>(layers * experts * experts), 3);
    }
    all.records.push_back(std::move(record));
  }
  return all;
}

TEST(ExpertHistoryTest, LoadsAreSharesOfAnEvenOne) {
  const auto json = expert_history_json(records_of(4, 1, 3), 100000);
  EXPECT_EQ(json["loads"]["step"].dump(), "[5,10,15,20]");
  EXPECT_EQ(json["loads"]["from"].dump(), "[0,5,10,15]");
  EXPECT_EQ(json["loads"]["values"][0][0].dump(),
            "[[0,0,0,0],[1500,1500,1500,1500],[1500,1500,1500,1500]]");
  EXPECT_EQ(json["loads"]["values"][0][1][2].dump(), "[1000,1000,1000,1000]");
  EXPECT_EQ(json["pairs"].size(), 2U);
  EXPECT_EQ(json["pairs"][1]["from"], 10);
  EXPECT_EQ(json["pairs"][1]["step"], 20);
  EXPECT_EQ(json["pairs"][1]["values"][0][2][2], 1111111);
}

TEST(ExpertHistoryTest, LittleIsNotNothing) {
  ExpertRecords all = records_of(1, 1, 2);
  all.records[0].loads = {1, 10000000, 5, 5};
  EXPECT_EQ(expert_history_json(all, 1000)["loads"]["values"][0][0][0][0], 1);
}

TEST(ExpertHistoryTest, ManyRecordsAndExpertsStayBounded) {
  const std::size_t numbers = 20000;
  for (const auto& [layers, experts] : {std::pair{2, 16}, {12, 64}, {16, 256}}) {
    const auto json = expert_history_json(records_of(40, layers, experts, 20), numbers);
    const std::size_t shown = json["layers"].size();
    const std::size_t columns = json["loads"]["step"].size();
    EXPECT_GE(shown, 1U);
    EXPECT_GE(columns, 16U);
    EXPECT_EQ(json["layer_count"], layers);
    EXPECT_EQ(json["loads"]["values"].size(), shown);
    const std::size_t loads = shown * 2 * static_cast<std::size_t>(experts) * columns;
    const std::size_t pairs =
        json["pairs"].size() * shown * static_cast<std::size_t>(experts * experts);
    // One layer is always shown, whatever its size.
    EXPECT_LE(loads, std::max<std::size_t>(numbers, 2UL * 16 * static_cast<std::size_t>(experts)));
    EXPECT_LE(pairs, std::max<std::size_t>(numbers, static_cast<std::size_t>(experts * experts)));
    EXPECT_EQ(json["loads"]["step"].back(), 200);
  }
}

TEST(ExpertHistoryTest, NoRecordsNoHistory) { EXPECT_TRUE(expert_history_json({}, 100).is_null()); }

}  // namespace
}  // namespace cartesian
