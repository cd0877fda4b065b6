#pragma once
// A rank's part of a journey of tokens through both sub-layers and back, with stand-ins for the
// experts whose sums are exact: what comes out is known token by token, whatever way it took.

#include <gtest/gtest.h>

#include <cmath>

#include "comm/exchange.h"
#include "tests/comm/exchange_scenario.h"
#include "tests/comm/rank_harness.h"

namespace cartesian::testing_ranks {

/// What stands in for a sub-layer: out = x + shared weight + sum of (gate * x + expert).
inline float sub_layer_value(const Scenario& scenario, int group, std::int64_t token, float x) {
  float out = x + shared_weight(token, group);
  for (const std::int32_t expert : scenario.chosen(group, token)) {
    out += expert < 0 ? 0 : gate_value(token, expert) * x + static_cast<float>(expert);
  }
  return out;
}
inline float sub_layer_slope(const Scenario& scenario, int group, std::int64_t token) {
  float slope = 1;
  for (const std::int32_t expert : scenario.chosen(group, token)) {
    slope += expert < 0 ? 0 : gate_value(token, expert);
  }
  return slope;
}

/// One rank's part of one sub-layer.
template <class T>
class SubLayerPart {
 public:
  SubLayerPart(RankContext& rank, Exchange& exchange, const Scenario& scenario, int group)
      : rank_(rank), exchange_(exchange), scenario_(scenario), group_(group) {}

  std::vector<SourceToken> tokens;
  ExchangePlan plan;

  void begin(int me, const Tensor& x) {
    x_ = x;
    const auto count = static_cast<std::int64_t>(tokens.size());
    const int k = scenario_.choices;
    const Tensor experts = rank_.arena.tensor(DType::i32, {count, k});
    const Tensor gates = rank_.arena.tensor(DType::f32, {count, k});
    const Tensor weights = rank_.arena.tensor(DType::f32, {count});
    const Tensor expected = rank_.arena.tensor(DType::i32, {count, k});
    for (std::int64_t t = 0; t < count; ++t) {
      const std::int64_t token = tokens[static_cast<std::size_t>(t)].token;
      std::ranges::copy(scenario_.chosen(group_, token), experts.data<std::int32_t>() + t * k);
      std::ranges::copy(scenario_.expected_of(token), expected.data<std::int32_t>() + t * k);
      for (int j = 0; j < k; ++j) {
        gates.data<float>()[t * k + j] =
            gate_value(token, std::max(0, int{experts.data<std::int32_t>()[t * k + j]}));
      }
      weights.data<float>()[t] = shared_weight(token, group_);
    }
    transfer_ = exchange_.begin_plan(
        rank_.context, {.block = 5,
                        .layer = kLayer,
                        .group = group_,
                        .tokens = tokens,
                        .experts = experts,
                        .gates = gates,
                        .shared_weights = weights,
                        .expected = group_ == 0 ? expected : Tensor(),
                        .first_home_token = scenario_.first_token[static_cast<std::size_t>(me)],
                        .home_tokens = scenario_.tokens(me)});
  }
  void spread() {
    plan = exchange_.finish_plan(std::move(transfer_));
    transfer_ = exchange_.begin_spread(rank_.context, plan, x_);
  }
  void hand_out() {
    behind_ = exchange_.finish_spread(rank_.context, rank_.arena, plan, std::move(transfer_));
    transfer_ = exchange_.begin_hand_out(rank_.context, plan, dtype_of<T>, scenario_.hidden,
                                         rows_of(x_, behind_));
  }
  void compute(int me) {
    received_ = exchange_.finish_hand_out(rank_.context, rank_.arena, plan, std::move(transfer_));
    const auto experts = scenario_.placement.experts_on(kLayer, group_, me);
    ASSERT_EQ(plan.slot_offsets.size(), experts.size() + 1);
    Rows y{rank_.arena.tensor(dtype_of<T>, received_.values.shape()), {}};
    for_each_received([&](std::size_t slot, std::int64_t row, std::int64_t i) {
      const float gate = received_.scalars.data<float>()[row];
      y.values.data<T>()[i] = from_float<T>(gate * to_float(received_.values.data<T>()[i]) +
                                            static_cast<float>(experts[slot]));
    });
    transfer_ = exchange_.begin_collect(rank_.context, plan, y);
    held_ = y;
  }
  void collect() {
    sums_ = rank_.arena.tensor(dtype_of<T>,
                               {static_cast<std::int64_t>(plan.rails.size()), scenario_.hidden});
    std::vector<std::uint8_t> fresh;
    const std::vector<const std::byte*> rows = rows_of(x_, behind_);
    for (std::size_t rail = 0; rail < plan.rails.size(); ++rail) {
      const RailToken& token = plan.rails[rail];
      fresh.push_back(token.finishes != 0 ? 0 : 1);
      EXPECT_EQ(token.shared_weight, shared_weight(token.source.token, group_));
      for (std::int64_t c = 0; c < scenario_.hidden && token.finishes != 0; ++c) {
        const T x = reinterpret_cast<const T*>(rows[rail])[c];
        sums_.data<T>()[static_cast<std::int64_t>(rail) * scenario_.hidden + c] =
            from_float<T>(to_float(x) + token.shared_weight);
      }
    }
    exchange_.finish_collect(rank_.context, plan, std::move(transfer_), row_targets(sums_), fresh);
    transfer_ = exchange_.begin_return(rank_.context, plan, dtype_of<T>, scenario_.hidden,
                                       row_sources(sums_));
  }
  Tensor gather() {
    const Tensor out = rank_.arena.tensor(dtype_of<T>, {plan.targets, scenario_.hidden});
    exchange_.finish_return(rank_.context, plan, std::move(transfer_), row_targets(out));
    return out;
  }

  void begin_backward(const Tensor& dout) {
    dout_ = dout;
    transfer_ = exchange_.begin_spread_gradients(rank_.context, plan, dout);
  }
  void hand_out_gradients() {
    dsums_ = exchange_.finish_spread_gradients(plan, std::move(transfer_));
    transfer_ =
        exchange_.begin_hand_out(rank_.context, plan, dtype_of<T>, scenario_.hidden, dsums_.rows);
  }
  void compute_gradients() {
    const Rows dy =
        exchange_.finish_hand_out(rank_.context, rank_.arena, plan, std::move(transfer_));
    EXPECT_FALSE(dy.scalars.defined());
    held_ = {rank_.arena.tensor(dtype_of<T>, dy.values.shape()),
             rank_.arena.zeros(DType::f32, {dy.values.rows()})};
    for_each_received([&](std::size_t, std::int64_t row, std::int64_t i) {
      const float d = to_float(dy.values.data<T>()[i]);
      held_.values.data<T>()[i] = from_float<T>(received_.scalars.data<float>()[row] * d);
      held_.scalars.data<float>()[row] += to_float(received_.values.data<T>()[i]) * d;
    });
    transfer_ = exchange_.begin_collect(rank_.context, plan, held_);
  }
  void collect_gradients() {
    const auto rails = static_cast<std::int64_t>(plan.rails.size());
    drails_ = rank_.arena.tensor(dtype_of<T>, {rails, scenario_.hidden});
    std::vector<std::uint8_t> fresh;
    std::vector<float> dweights;
    for (std::size_t rail = 0; rail < plan.rails.size(); ++rail) {
      const bool finishes = plan.rails[rail].finishes != 0;
      fresh.push_back(finishes ? 0 : 1);
      dweights.push_back(0);
      for (std::int64_t c = 0; c < scenario_.hidden && finishes; ++c) {
        const T d = reinterpret_cast<const T*>(dsums_.rows[rail])[c];
        drails_.data<T>()[static_cast<std::int64_t>(rail) * scenario_.hidden + c] = d;
        dweights.back() += to_float(d);
      }
    }
    const std::vector<float> dgates = exchange_.finish_collect(
        rank_.context, plan, std::move(transfer_), row_targets(drails_), fresh);
    transfer_ =
        exchange_.begin_return_gradients(rank_.context, plan,
                                         {.rows = drails_.slice(plan.sources, rails - plan.sources),
                                          .choices = dgates,
                                          .shared_weights = dweights});
  }
  Tensor gather_gradients() {
    gates_ = rank_.arena.tensor(DType::f32, {plan.sources, scenario_.choices});
    weights_ = rank_.arena.tensor(DType::f32, {plan.sources});
    const Tensor dx = drails_.slice(0, plan.sources);
    exchange_.finish_return_gradients(rank_.context, plan, std::move(transfer_),
                                      {.rows = dx, .gates = gates_, .shared_weights = weights_});
    return dx;
  }

  /// Gradients of gates and shared weights, given those of the sub-layer's output by token.
  void expect_scalars(const std::function<float(std::int64_t, std::int64_t)>& x,
                      const std::function<float(std::int64_t, std::int64_t)>& dout) const {
    for (std::size_t t = 0; t < tokens.size(); ++t) {
      const std::int64_t token = tokens[t].token;
      float dweight = 0;
      float product = 0;
      for (std::int64_t c = 0; c < scenario_.hidden; ++c) {
        dweight += dout(token, c);
        product += dout(token, c) * x(token, c);
      }
      EXPECT_EQ(weights_.data<float>()[t], dweight);
      const auto chosen = scenario_.chosen(group_, token);
      for (std::size_t j = 0; j < chosen.size(); ++j) {
        EXPECT_EQ(gates_.data<float>()[t * chosen.size() + j], chosen[j] < 0 ? 0 : product);
      }
    }
  }

 private:
  static std::vector<const std::byte*> rows_of(const Tensor& sources, const Tensor& behind) {
    std::vector<const std::byte*> rows = row_sources(sources);
    const std::vector<const std::byte*> more = row_sources(behind);
    rows.insert(rows.end(), more.begin(), more.end());
    return rows;
  }
  /// visit(slot, padded row, element).
  template <class Visit>
  void for_each_received(const Visit& visit) const {
    for (std::size_t slot = 0; slot + 1 < plan.slot_offsets.size(); ++slot) {
      for (std::int64_t row = plan.slot_offsets[slot]; row < plan.slot_offsets[slot + 1]; ++row) {
        const bool padding = row >= plan.slot_offsets[slot] + plan.slot_rows[slot];
        for (std::int64_t c = 0; c < scenario_.hidden; ++c) {
          const std::int64_t i = row * scenario_.hidden + c;
          if (padding) {
            EXPECT_EQ(to_float(received_.values.data<T>()[i]), 0);
            EXPECT_EQ(received_.scalars.data<float>()[row], 0);
          }
          visit(slot, row, i);
        }
      }
    }
  }

  RankContext& rank_;
  Exchange& exchange_;
  const Scenario& scenario_;
  int group_;
  TransferPtr transfer_;
  Tensor x_, behind_, sums_, dout_, drails_, gates_, weights_;
  Rows received_, held_;
  HeldRows dsums_;
};

/// One rank's part of a journey: sub-layer by sub-layer, with what they hand on.
template <class T>
class Journey {
 public:
  Journey(Transport& transport, RankContext& rank, Exchange& exchange, const Scenario& scenario)
      : rank_(rank), scenario_(scenario), me_(transport.rank()) {
    for (int group = 0; group < scenario.placement.shape().groups; ++group) {
      parts.emplace_back(rank, exchange, scenario, group);
    }
  }

  std::vector<SubLayerPart<T>> parts;

  void begin(std::size_t group) {
    if (group == 0) {
      const std::int64_t count = scenario_.tokens(me_);
      x_ = rank_.arena.tensor(dtype_of<T>, {count, scenario_.hidden});
      for (std::int64_t t = 0; t < count; ++t) {
        const std::int64_t token = scenario_.first_token[static_cast<std::size_t>(me_)] + t;
        parts[0].tokens.push_back(
            {static_cast<std::int32_t>(token), me_, static_cast<std::int32_t>(token % 10)});
        for (std::int64_t c = 0; c < scenario_.hidden; ++c) {
          x_.data<T>()[t * scenario_.hidden + c] = from_float<T>(token_value(token, c));
        }
      }
    } else if (parts[0].plan.to_pivots) {
      for (const std::int32_t rail : parts[0].plan.target_rails) {
        parts[1].tokens.push_back(parts[0].plan.rails[static_cast<std::size_t>(rail)].source);
        EXPECT_EQ(parts[1].tokens.back().tag, parts[1].tokens.back().token % 10);
      }
    } else {
      parts[1].tokens = parts[0].tokens;
    }
    parts[group].begin(me_, x_);
  }
  void gather(std::size_t group) { x_ = parts[group].gather(); }

  void forward() {
    for (std::size_t group = 0; group < parts.size(); ++group) {
      begin(group);
      parts[group].spread();
      parts[group].hand_out();
      parts[group].compute(me_);
      parts[group].collect();
      gather(group);
    }
  }
  void backward() {
    Tensor d = rank_.arena.tensor(dtype_of<T>, x_.shape());
    for (std::int64_t t = 0; t < d.rows(); ++t) {
      for (std::int64_t c = 0; c < scenario_.hidden; ++c) {
        d.data<T>()[t * scenario_.hidden + c] = from_float<T>(gradient_value(token(t), c));
      }
    }
    for (std::size_t group = parts.size(); group-- > 0;) {
      parts[group].begin_backward(d);
      parts[group].hand_out_gradients();
      parts[group].compute_gradients();
      parts[group].collect_gradients();
      d = parts[group].gather_gradients();
    }
    dx_ = d;
  }

  const Tensor& output() const { return x_; }
  const Tensor& input_gradient() const { return dx_; }
  std::int64_t token(std::int64_t row) const {
    return scenario_.first_token[static_cast<std::size_t>(me_)] + row;
  }

  /// `relative`: of bfloat16, whose sums are rounded on the way; 0 for exactly.
  void expect_output(float relative) const {
    ASSERT_EQ(x_.rows(), scenario_.tokens(me_));
    expect(x_, relative, [&](std::int64_t token, std::int64_t column) {
      return last_input(token, column, parts.size());
    });
  }
  void expect_gradients() const {
    expect(dx_, 0,
           [&](std::int64_t token, std::int64_t column) { return dinput(token, column, 0); });
    for (std::size_t group = 0; group < parts.size(); ++group) {
      parts[group].expect_scalars(
          [&](std::int64_t token, std::int64_t c) { return last_input(token, c, group); },
          [&](std::int64_t token, std::int64_t c) { return dinput(token, c, group + 1); });
    }
  }

 private:
  /// What goes into sub-layer `group`.
  float last_input(std::int64_t token, std::int64_t column, std::size_t group) const {
    float x = token_value(token, column);
    for (std::size_t g = 0; g < group; ++g) {
      x = sub_layer_value(scenario_, static_cast<int>(g), token, x);
    }
    return x;
  }
  /// The gradient of that.
  float dinput(std::int64_t token, std::int64_t column, std::size_t group) const {
    float d = gradient_value(token, column);
    for (std::size_t g = parts.size(); g-- > group;) {
      d *= sub_layer_slope(scenario_, static_cast<int>(g), token);
    }
    return d;
  }
  template <class Value>
  void expect(const Tensor& rows, float relative, const Value& value) const {
    for (std::int64_t t = 0; t < rows.rows(); ++t) {
      for (std::int64_t c = 0; c < scenario_.hidden; ++c) {
        const float expected = value(token(t), c);
        const float actual = to_float(rows.data<T>()[t * scenario_.hidden + c]);
        ASSERT_LE(std::abs(actual - expected), relative * (40 + std::abs(expected)))
            << "token " << token(t) << ", column " << c << ": " << actual << ", not " << expected;
      }
    }
  }

  RankContext& rank_;
  const Scenario& scenario_;
  int me_;
  Tensor x_, dx_;
};

}  // namespace cartesian::testing_ranks
