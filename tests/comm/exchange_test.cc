// Journeys of tokens through both sub-layers and back, with stand-ins for the experts whose sums
// are exact: what comes out is known token by token, whatever way it took.

#include "comm/exchange.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/messages.h"
#include "comm/collectives.h"
#include "tests/comm/exchange_journey.h"

namespace cartesian {
namespace {

using namespace testing_ranks;

class ExchangeTest : public RankTest {};
INSTANTIATE_TEST_SUITE_P(Sizes, ExchangeTest, ::testing::ValuesIn(job_sizes()), size_name);

constexpr std::uint64_t kSeeds = 60;

template <class T>
void travel(Transport& transport, std::uint64_t seed, int groups, float relative) {
  SCOPED_TRACE("seed " + std::to_string(seed) + ", groups " + std::to_string(groups));
  const Scenario scenario = make_scenario(seed, transport.size(), groups);
  RankContext rank;
  Exchange exchange(transport, scenario.topology, scenario.placement, scenario.options);
  Journey<T> journey(transport, rank, exchange, scenario);
  journey.forward();
  journey.expect_output(relative);
  journey.backward();
  if (relative == 0) {
    journey.expect_gradients();
  }
}

TEST_P(ExchangeTest, SumsOfBothSubLayersComeHome) {
  run([](Transport& transport) {
    for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
      travel<float>(transport, seed, 2, 0);
      travel<bfloat16>(transport, seed, 2, 0.05F);
    }
  });
}

TEST_P(ExchangeTest, OneSubLayerTravelsToo) {
  run([](Transport& transport) {
    for (std::uint64_t seed = 100; seed < 100 + kSeeds; ++seed) {
      travel<float>(transport, seed, 1, 0);
    }
  });
}

TEST_P(ExchangeTest, SeveralJourneysInFlightRepeatBitForBit) {
  run([](Transport& transport) {
    constexpr std::uint64_t kChunks = 3;
    std::vector<std::vector<std::byte>> first;
    for (int time = 0; time < 2; ++time) {
      RankContext rank;
      const Scenario base = make_scenario(400, transport.size());
      Exchange exchange(transport, base.topology, base.placement, base.options);
      std::vector<Scenario> scenarios(kChunks, base);
      std::vector<Journey<float>> journeys;
      for (std::uint64_t i = 0; i < kChunks; ++i) {
        for (auto& token : scenarios[i].first_token) {
          token += static_cast<std::int64_t>(1000 * i);
        }
        journeys.emplace_back(transport, rank, exchange, scenarios[i]);
      }
      for (std::size_t group = 0; group < 2; ++group) {
        const auto each = [&](const auto& step) {
          for (Journey<float>& journey : journeys) {
            step(journey);
          }
        };
        each([&](auto& journey) { journey.begin(group); });
        each([&](auto& journey) { journey.parts[group].spread(); });
        each([&](auto& journey) { journey.parts[group].hand_out(); });
        each([&](auto& journey) { journey.parts[group].compute(transport.rank()); });
        each([&](auto& journey) { journey.parts[group].collect(); });
        each([&](auto& journey) { journey.gather(group); });
      }
      for (std::size_t i = 0; i < kChunks; ++i) {
        journeys[i].expect_output(0);
        const auto* bytes = static_cast<const std::byte*>(journeys[i].output().raw());
        const std::vector<std::byte> bits(bytes, bytes + journeys[i].output().bytes());
        if (time == 0) {
          first.push_back(bits);
        } else {
          EXPECT_EQ(bits, first[i]);
        }
      }
    }
  });
}

/// Rows that the itineraries say will travel, [intra, inter].
std::array<double, 2> predicted_rows(const Scenario& scenario) {
  std::array<double, 2> rows{};
  for (int home = 0; home < scenario.topology.ranks(); ++home) {
    for (std::int64_t t = 0; t < scenario.tokens(home); ++t) {
      const Way way =
          way_of(scenario, home, scenario.first_token[static_cast<std::size_t>(home)] + t);
      const bool two = scenario.placement.shape().groups == 2;
      const Flow flow =
          scenario.options.flow == Flow::pivot && !two ? Flow::home : scenario.options.flow;
      for_each_message(
          flow, {.home = home, .pivot = way.pivot, .a_ranks = way.a_ranks, .b_ranks = way.b_ranks},
          scenario.topology, [&](TravelPhase, int from, int to) {
            ++rows.at(scenario.topology.node(from) == scenario.topology.node(to) ? 0 : 1);
          });
    }
  }
  return rows;
}

TEST_P(ExchangeTest, SendsTheRowsThatTheItinerariesSay) {
  run([](Transport& transport) {
    for (std::uint64_t seed = 200; seed < 200 + kSeeds; ++seed) {
      SCOPED_TRACE("seed " + std::to_string(seed));
      const Scenario scenario = make_scenario(seed, transport.size(), seed % 4 == 0 ? 1 : 2);
      RankContext rank;
      Exchange exchange(transport, scenario.topology, scenario.placement, scenario.options);
      Journey<float> journey(transport, rank, exchange, scenario);
      const auto sent = [&] {
        std::vector<double> rows;
        for (const char* scope : {"intra", "inter"}) {
          rows.push_back(
              rank.metrics
                  .counter(std::string("cartesian_exchange_rows_total{scope=\"") + scope + "\"}")
                  .value());
        }
        all_reduce_sum(rank.context, transport, Team::world(transport), std::span<double>(rows));
        return rows;
      };
      const std::array<double, 2> predicted = predicted_rows(scenario);
      journey.forward();
      EXPECT_EQ(sent(), std::vector<double>(predicted.begin(), predicted.end()));
      journey.backward();
      EXPECT_EQ(sent(), (std::vector<double>{2 * predicted[0], 2 * predicted[1]}));
    }
  });
}

TEST_P(ExchangeTest, CountsHowWellPivotsAreChosen) {
  run([](Transport& transport) {
    for (std::uint64_t seed = 500; seed < 500 + kSeeds / 4; ++seed) {
      const Scenario scenario = make_scenario(seed, transport.size());
      if (scenario.options.flow != Flow::pivot || scenario.topology.nodes() == 1) {
        continue;
      }
      RankContext rank;
      Exchange exchange(transport, scenario.topology, scenario.placement, scenario.options);
      Journey<float>(transport, rank, exchange, scenario).forward();
      std::vector<double> counted;
      for (const char* name : {"pivots", "pivots_away", "pivot_hits"}) {
        counted.push_back(
            rank.metrics.counter(std::string("cartesian_exchange_") + name + "_total").value());
      }
      all_reduce_sum(rank.context, transport, Team::world(transport), std::span<double>(counted));
      std::vector<double> expected(3);
      for (int home = 0; home < transport.size(); ++home) {
        for (std::int64_t t = 0; t < scenario.tokens(home); ++t) {
          const Way way =
              way_of(scenario, home, scenario.first_token[static_cast<std::size_t>(home)] + t);
          expected[0] += 1;
          expected[1] += way.pivot != home ? 1 : 0;
          expected[2] += std::ranges::any_of(way.b_ranks, [&](std::int32_t expert) {
            return expert >= 0 &&
                   scenario.topology.node(expert) == scenario.topology.node(way.pivot);
          });
        }
      }
      EXPECT_EQ(counted, expected) << "seed " << seed;
    }
  });
}

TEST_P(ExchangeTest, PivotsReportToHomes) {
  run([](Transport& transport) {
    for (std::uint64_t seed = 300; seed < 300 + kSeeds; ++seed) {
      const Scenario scenario = make_scenario(seed, transport.size());
      RankContext rank;
      Exchange exchange(transport, scenario.topology, scenario.placement, scenario.options);
      Journey<float> journey(transport, rank, exchange, scenario);
      journey.forward();
      const ExchangePlan& plan = journey.parts[0].plan;
      if (!plan.to_pivots) {
        continue;
      }
      const auto& tokens = journey.parts[1].tokens;
      const auto count = static_cast<std::int64_t>(tokens.size());
      const Choices made{rank.arena.tensor(DType::i32, {count, 2}),
                         rank.arena.tensor(DType::f32, {count, 2})};
      for (std::int64_t i = 0; i < 2 * count; ++i) {
        made.experts.data<std::int32_t>()[i] =
            2 * tokens[static_cast<std::size_t>(i / 2)].token + static_cast<std::int32_t>(i % 2);
        made.gates.data<float>()[i] = static_cast<float>(made.experts.data<std::int32_t>()[i]) / 4;
      }
      const Choices seen =
          exchange.finish_report(rank.arena, plan, exchange.begin_report(plan, made));
      ASSERT_EQ(seen.experts.rows(), scenario.tokens(transport.rank()));
      for (std::int64_t i = 0; i < seen.experts.numel(); ++i) {
        EXPECT_EQ(seen.experts.data<std::int32_t>()[i], 2 * journey.token(i / 2) + i % 2);
        EXPECT_EQ(seen.gates.data<float>()[i],
                  static_cast<float>(2 * journey.token(i / 2) + i % 2) / 4);
      }
    }
  });
}

TEST_P(ExchangeTest, SteadyLoadTakesNoMemory) {
  run([](Transport& transport) {
    for (std::uint64_t seed = 7; seed < 12; ++seed) {
      const Scenario scenario = make_scenario(seed, transport.size());
      RankContext rank;
      Exchange exchange(transport, scenario.topology, scenario.placement, scenario.options);
      const auto growths = [&] {
        return std::pair(rank.arena.growths(),
                         rank.metrics.counter("cartesian_exchange_staging_growths_total").value());
      };
      const auto step = [&] {
        Journey<float> journey(transport, rank, exchange, scenario);
        journey.forward();
        journey.backward();
        rank.arena.reset();
      };
      step();
      step();
      const auto before = growths();
      step();
      EXPECT_EQ(growths(), before);
    }
  });
}

TEST(PaddedRowCount, HasFewDistinctSizesAndLittleWaste) {
  EXPECT_EQ(padded_row_count(0), 0);
  EXPECT_EQ(padded_row_count(1), 16);
  EXPECT_EQ(padded_row_count(16), 16);
  EXPECT_EQ(padded_row_count(511), 512);
  EXPECT_EQ(padded_row_count(513), 544);
  EXPECT_EQ(padded_row_count(1024), 1024);
  EXPECT_EQ(padded_row_count(1025), 1088);
  for (std::int64_t rows = 513; rows < 100'000; rows += 37) {
    EXPECT_GE(padded_row_count(rows), rows);
    EXPECT_LT(padded_row_count(rows), rows + rows / 16 + 1);
    EXPECT_EQ(padded_row_count(rows) % 16, 0);
  }
}

}  // namespace
}  // namespace cartesian
