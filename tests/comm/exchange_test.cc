#include "comm/exchange.h"

#include <gtest/gtest.h>

#include <cstring>

#include "comm/collectives.h"
#include "tests/comm/exchange_scenario.h"
#include "tests/comm/rank_harness.h"

namespace cartesian {
namespace {

using namespace testing_ranks;

/// A rank's part in a scenario.
template <class T>
class Player {
 public:
  Player(Transport& transport, const Scenario& scenario)
      : scenario_(scenario),
        me_(transport.rank()),
        exchange_(transport, scenario.topology, scenario.placement) {}

  RankContext rank;

  std::int64_t tokens() const { return scenario_.tokens(me_); }
  std::int64_t global(std::int64_t row) const {
    return scenario_.first_token[static_cast<std::size_t>(me_)] + row;
  }
  Exchange& exchange() { return exchange_; }

  /// Chosen experts with the columns of each row rotated by `rotation`.
  Tensor experts(int rotation = 0) {
    const Tensor result = rank.arena.tensor(DType::i32, {tokens(), scenario_.choices});
    fill_rotated(scenario_.experts[static_cast<std::size_t>(me_)], rotation,
                 result.data<std::int32_t>());
    return result;
  }

  /// Token rows and gates for experts(rotation).
  Rows rows(int rotation = 0) {
    Rows result{rank.arena.tensor(dtype_of<T>, {tokens(), scenario_.hidden}),
                rank.arena.tensor(DType::f32, {tokens(), scenario_.choices})};
    for (std::int64_t t = 0; t < tokens(); ++t) {
      for (std::int64_t c = 0; c < scenario_.hidden; ++c) {
        result.values.template data<T>()[t * scenario_.hidden + c] =
            from_float<T>(token_value(global(t), c));
      }
    }
    std::vector<float> gates;
    const auto& chosen = scenario_.experts[static_cast<std::size_t>(me_)];
    for (std::size_t i = 0; i < chosen.size(); ++i) {
      gates.push_back(
          gate_value(global(static_cast<std::int64_t>(i) / scenario_.choices), chosen[i]));
    }
    fill_rotated(gates, rotation, result.scalars.data<float>());
    return result;
  }

  ExchangePlan plan(int rotation = 0) {
    const Tensor chosen = experts(rotation);
    return exchange_.finish_plan(rank.context, exchange_.begin_plan(rank.context, rank.arena,
                                                                    {.block = 5,
                                                                     .layer = kLayer,
                                                                     .group = kGroup,
                                                                     .experts = chosen,
                                                                     .first_token = global(0)}));
  }
  Rows dispatch(const ExchangePlan& plan, const Rows& rows) {
    return exchange_.finish_dispatch(
        rank.context, exchange_.begin_dispatch(rank.context, rank.arena, plan, rows));
  }
  Rows combine(const ExchangePlan& plan, const Rows& rows) {
    return exchange_.finish_combine(rank.context,
                                    exchange_.begin_combine(rank.context, rank.arena, plan, rows));
  }

  /// What stands in for the experts: y = gate * x + expert, and gate + expert as the scalar.
  Rows run_experts(const ExchangePlan& plan, const Rows& received) {
    Rows result{rank.arena.tensor(dtype_of<T>, received.values.shape()),
                rank.arena.tensor(DType::f32, received.scalars.shape())};
    const auto experts = scenario_.placement.experts_on(kLayer, kGroup, me_);
    for (std::size_t slot = 0; slot < experts.size(); ++slot) {
      for (std::int64_t r = plan.slot_offsets[slot]; r < plan.slot_offsets[slot + 1]; ++r) {
        const float gate = received.scalars.template data<float>()[r];
        result.scalars.template data<float>()[r] = gate + static_cast<float>(experts[slot]);
        for (std::int64_t c = 0; c < scenario_.hidden; ++c) {
          const std::int64_t i = r * scenario_.hidden + c;
          result.values.template data<T>()[i] = from_float<T>(
              expert_output(gate, to_float(received.values.template data<T>()[i]), experts[slot]));
        }
      }
    }
    return result;
  }
  static float expert_output(float gate, float x, int expert) {
    return gate * x + static_cast<float>(expert);
  }

  void expect_received(const ExchangePlan& plan, const Rows& received) const;
  void expect_combined(const Rows& out) const;

 private:
  template <class V>
  void fill_rotated(const std::vector<V>& from, int rotation, V* to) const {
    const int k = scenario_.choices;
    for (std::size_t i = 0; i < from.size(); ++i) {
      const auto row = static_cast<int>(i) / k;
      const auto column = static_cast<int>(i) % k;
      to[row * k + (column + rotation) % k] = from[i];
    }
  }

  const Scenario& scenario_;
  int me_;
  Exchange exchange_;
};

template <class T>
void Player<T>::expect_received(const ExchangePlan& plan, const Rows& received) const {
  const auto experts = scenario_.placement.experts_on(kLayer, kGroup, me_);
  ASSERT_EQ(plan.slot_offsets.size(), experts.size() + 1);
  for (std::size_t slot = 0; slot < experts.size(); ++slot) {
    std::vector<Choice> expected;  // by source rank, then row
    for (int home = 0; home < scenario_.topology.ranks(); ++home) {
      for (const Choice& choice : choices_of(scenario_, home)) {
        if (choice.rank == me_ && choice.expert == experts[slot]) {
          expected.push_back(choice);
        }
      }
    }
    const std::int64_t begin = plan.slot_offsets[slot];
    const auto rows = static_cast<std::int64_t>(expected.size());
    ASSERT_EQ(plan.slot_rows[slot], rows);
    ASSERT_EQ(plan.slot_offsets[slot + 1], begin + padded_row_count(rows));
    for (std::int64_t r = 0; r < padded_row_count(rows); ++r) {
      const bool real = r < rows;
      const Choice choice = real ? expected[static_cast<std::size_t>(r)] : Choice{};
      const std::int64_t token =
          scenario_.first_token[static_cast<std::size_t>(choice.home)] + choice.row;
      EXPECT_EQ(received.scalars.data<float>()[begin + r],
                real ? gate_value(token, choice.expert) : 0.0F);
      for (std::int64_t c = 0; c < scenario_.hidden; ++c) {
        ASSERT_EQ(to_float(received.values.template data<T>()[(begin + r) * scenario_.hidden + c]),
                  real ? token_value(token, c) : 0.0F);
      }
    }
  }
  EXPECT_EQ(received.values.rows(), plan.slot_offsets.back());
}

template <class T>
void Player<T>::expect_combined(const Rows& out) const {
  std::vector<float> scalars(static_cast<std::size_t>(tokens() * scenario_.choices));
  std::vector<std::vector<Choice>> by_row(static_cast<std::size_t>(tokens()));
  for (const Choice& choice : choices_of(scenario_, me_)) {
    by_row[static_cast<std::size_t>(choice.row)].push_back(choice);
    scalars[static_cast<std::size_t>(choice.row * scenario_.choices + choice.column)] =
        gate_value(global(choice.row), choice.expert) + static_cast<float>(choice.expert);
  }
  for (std::int64_t t = 0; t < tokens(); ++t) {
    auto& summands = by_row[static_cast<std::size_t>(t)];
    std::ranges::sort(summands, {}, [this](const Choice& choice) {
      return std::pair(scenario_.topology.node(choice.rank), choice.expert);
    });
    for (std::int64_t c = 0; c < scenario_.hidden; ++c) {
      float sum = 0.0F;
      for (const Choice& choice : summands) {
        sum += to_float(from_float<T>(expert_output(gate_value(global(t), choice.expert),
                                                    token_value(global(t), c), choice.expert)));
      }
      ASSERT_EQ(to_float(out.values.data<T>()[t * scenario_.hidden + c]),
                to_float(from_float<T>(sum)));
    }
  }
  const auto got = out.scalars.span<float>();
  EXPECT_EQ(std::vector<float>(got.begin(), got.end()), scalars);
}

template <class T>
void play(Transport& transport, std::uint64_t seed) {
  SCOPED_TRACE("seed " + std::to_string(seed));
  const Scenario scenario = make_scenario(seed, transport.size());
  Player<T> player(transport, scenario);
  const ExchangePlan plan = player.plan();
  const Rows received = player.dispatch(plan, player.rows());
  player.expect_received(plan, received);
  player.expect_combined(player.combine(plan, player.run_experts(plan, received)));
}

class ExchangeTest : public RankTest {};
INSTANTIATE_TEST_SUITE_P(Sizes, ExchangeTest, ::testing::ValuesIn(job_sizes()), size_name);

constexpr std::uint64_t kSeeds = 40;

TEST_P(ExchangeTest, MovesAndSumsAsTheContractSays) {
  run([](Transport& transport) {
    for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
      play<float>(transport, seed);
      play<bfloat16>(transport, seed);
    }
  });
}

TEST_P(ExchangeTest, OrderOfChoicesDoesNotChangeTheBits) {
  run([](Transport& transport) {
    for (std::uint64_t seed = 100; seed < 100 + kSeeds; ++seed) {
      const Scenario scenario = make_scenario(seed, transport.size());
      Player<float> player(transport, scenario);
      std::vector<std::vector<float>> results;
      for (int rotation = 0; rotation < scenario.choices; ++rotation) {
        const ExchangePlan plan = player.plan(rotation);
        const Rows received = player.dispatch(plan, player.rows(rotation));
        const auto out = player.combine(plan, player.run_experts(plan, received)).values;
        results.emplace_back(out.span<float>().begin(), out.span<float>().end());
        EXPECT_EQ(results.back(), results.front()) << "seed " << seed;
      }
    }
  });
}

TEST_P(ExchangeTest, ScalarsAreOptional) {
  run([](Transport& transport) {
    for (std::uint64_t seed = 200; seed < 200 + kSeeds / 4; ++seed) {
      const Scenario scenario = make_scenario(seed, transport.size());
      Player<bfloat16> player(transport, scenario);
      const ExchangePlan plan = player.plan();
      const Rows with = player.dispatch(plan, player.rows());
      const Rows without = player.dispatch(plan, {player.rows().values, {}});
      EXPECT_FALSE(without.scalars.defined());
      ASSERT_EQ(without.values.bytes(), with.values.bytes());
      EXPECT_EQ(std::memcmp(without.values.raw(), with.values.raw(), with.values.bytes()), 0);
      const Rows y = player.run_experts(plan, with);
      const Rows out = player.combine(plan, y);
      const Rows plain = player.combine(plan, {y.values, {}});
      EXPECT_FALSE(plain.scalars.defined());
      EXPECT_EQ(std::memcmp(plain.values.raw(), out.values.raw(), out.values.bytes()), 0);
    }
  });
}

double inner_product(const Tensor& a, const Tensor& b) {
  double sum = 0.0;
  for (std::int64_t i = 0; i < a.numel(); ++i) {
    sum += static_cast<double>(a.data<float>()[i]) * static_cast<double>(b.data<float>()[i]);
  }
  return sum;
}

TEST_P(ExchangeTest, DispatchAndCombineAreAdjoint) {
  run([](Transport& transport) {
    for (std::uint64_t seed = 300; seed < 300 + kSeeds; ++seed) {
      const Scenario scenario = make_scenario(seed, transport.size());
      Player<float> player(transport, scenario);
      const ExchangePlan plan = player.plan();
      const Rows x = player.rows();
      const Rows received = player.dispatch(plan, x);
      // Whole numbers, so that the products and their sums are exact.
      const Tensor y = player.rank.arena.tensor(DType::f32, received.values.shape());
      for (std::int64_t i = 0; i < y.numel(); ++i) {
        y.data<float>()[i] = static_cast<float>((i * 13 + transport.rank()) % 17 - 8);
      }
      const Rows back = player.combine(plan, {y, {}});
      std::vector<double> products{inner_product(received.values, y),
                                   inner_product(x.values, back.values)};
      all_reduce_sum(player.rank.context, transport, Team::world(transport),
                     std::span<double>(products));
      EXPECT_EQ(products[0], products[1]) << "seed " << seed;
    }
  });
}

TEST_P(ExchangeTest, SeveralExchangesInFlight) {
  run([](Transport& transport) {
    constexpr std::uint64_t kChunks = 4;
    std::vector<Scenario> scenarios;
    for (std::uint64_t seed = 400; seed < 400 + kChunks; ++seed) {
      scenarios.push_back(make_scenario(seed, transport.size()));
    }
    std::vector<std::unique_ptr<Player<float>>> players;
    std::vector<ExchangePlan> plans;
    for (const Scenario& scenario : scenarios) {
      players.push_back(std::make_unique<Player<float>>(transport, scenario));
      plans.push_back(players.back()->plan());
    }
    std::vector<TransferPtr> dispatches;
    for (std::size_t i = 0; i < kChunks; ++i) {
      Player<float>& player = *players[i];
      dispatches.push_back(player.exchange().begin_dispatch(player.rank.context, player.rank.arena,
                                                            plans[i], player.rows()));
    }
    std::vector<TransferPtr> combines;
    for (std::size_t i = 0; i < kChunks; ++i) {
      Player<float>& player = *players[i];
      const Rows received =
          player.exchange().finish_dispatch(player.rank.context, std::move(dispatches[i]));
      player.expect_received(plans[i], received);
      combines.push_back(player.exchange().begin_combine(player.rank.context, player.rank.arena,
                                                         plans[i],
                                                         player.run_experts(plans[i], received)));
    }
    for (std::size_t i = 0; i < kChunks; ++i) {
      Player<float>& player = *players[i];
      player.expect_combined(
          player.exchange().finish_combine(player.rank.context, std::move(combines[i])));
    }
  });
}

TEST_P(ExchangeTest, SteadyLoadTakesNoMemoryAndCountsEveryRow) {
  run([](Transport& transport) {
    const Scenario scenario = make_scenario(7, transport.size());
    Player<float> player(transport, scenario);
    const auto step = [&player] {
      const ExchangePlan plan = player.plan();
      const Rows received = player.dispatch(plan, player.rows());
      static_cast<void>(player.combine(plan, player.run_experts(plan, received)));
      player.rank.arena.reset();
    };
    step();
    step();
    const auto before = player.rank.metrics.counters();
    const std::int64_t growths = player.rank.arena.growths();
    step();
    auto after = player.rank.metrics.counters();
    EXPECT_EQ(player.rank.arena.growths(), growths);
    double moved = 0.0;
    for (const auto& [name, value] : before) {
      if (name.starts_with("cartesian_exchange_rows_total")) {
        EXPECT_EQ(after[name] * 2.0, value * 3.0) << name;
        moved += after[name] - value;
      } else {
        EXPECT_EQ(after[name], value) << name;
      }
    }
    // Each choice is one row there and one row back.
    std::vector<double> rows{moved};
    all_reduce_sum(player.rank.context, transport, Team::world(transport), std::span<double>(rows));
    double choices = 0.0;
    for (int home = 0; home < transport.size(); ++home) {
      choices += static_cast<double>(choices_of(scenario, home).size());
    }
    EXPECT_EQ(rows[0], 2.0 * choices);
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
