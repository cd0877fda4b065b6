#include "runtime/bench/exchange_sub_layer.h"

#include <algorithm>

#include "base/check.h"
#include "base/index.h"
#include "runtime/model/rail_rows.h"

namespace cartesian {

void ExchangeSubLayer::begin(std::vector<SourceToken> tokens, const Tensor& x, const Home& home) {
  tokens_ = std::move(tokens);
  x_ = x;
  home_ = home;
}

void ExchangeSubLayer::run(std::size_t stage, BenchSeconds& seconds) {
  const Clock& clock = bench_.op.clock;
  if (stage < 3) {
    const BenchTimer timer(clock, seconds, dispatch_of(group_));
    return stage == 0 ? route() : stage == 1 ? spread() : hand_out();
  }
  if (stage == 3) {
    {
      const BenchTimer timer(clock, seconds, dispatch_of(group_));
      receive();
    }
    const BenchTimer timer(clock, seconds, BenchPhase::experts);
    compute();
  }
  const BenchTimer timer(clock, seconds, collect_of(group_));
  if (stage == 3) {
    transfer_ = bench_.exchange.begin_collect(bench_.op, plan_, held_);
  } else if (stage == 4) {
    collect();
  } else {
    gather();
  }
}

void ExchangeSubLayer::route() {
  const ExchangeCase& measured = bench_.measured;
  const auto count = static_cast<std::int64_t>(tokens_.size());
  const std::int64_t k = measured.choices(group_).choices;
  const std::vector<std::int16_t>& guesses =
      measured.choices(measured.groups() - 1).speculative_ids;
  const Tensor experts = bench_.activations.tensor(DType::i32, {count, k});
  const Tensor gates = bench_.activations.tensor(DType::f32, {count, k});
  Tensor expected;
  if (group_ == 0 && bench_.exchange.wants_expected() && !guesses.empty()) {
    const std::int64_t width = measured.choices(1).choices;
    expected = bench_.activations.tensor(DType::i32, {count, width});
    for (std::int64_t t = 0; t < count; ++t) {
      std::copy_n(guesses.begin() + tokens_[as_index(t)].token * width, width,
                  expected.data<std::int32_t>() + t * width);
    }
  }
  for (std::int64_t t = 0; t < count; ++t) {
    const std::int32_t token = tokens_[as_index(t)].token;
    std::ranges::copy(measured.chosen(group_, token), experts.data<std::int32_t>() + t * k);
    std::ranges::copy(measured.gates(group_, token), gates.data<float>() + t * k);
  }
  transfer_ = bench_.exchange.begin_plan(bench_.op, {.layer = measured.layer,
                                                     .group = group_,
                                                     .tokens = tokens_,
                                                     .experts = experts,
                                                     .gates = gates,
                                                     .shared_weights = {},
                                                     .expected = expected,
                                                     .first_home_token = home_.first_token,
                                                     .home_tokens = home_.tokens});
}

void ExchangeSubLayer::spread() {
  plan_ = bench_.exchange.finish_plan(std::move(transfer_));
  transfer_ = bench_.exchange.begin_spread(bench_.op, plan_, x_);
}

void ExchangeSubLayer::hand_out() {
  behind_ =
      bench_.exchange.finish_spread(bench_.op, bench_.activations, plan_, std::move(transfer_));
  transfer_ = bench_.exchange.begin_hand_out(bench_.op, plan_, x_.dtype(), x_.cols(),
                                             rail_rows(x_, behind_));
}

/// Sums begin as residuals on the rails that finish them, while rows travel. Where a target is a
/// source, its sum is made in place.
void ExchangeSubLayer::receive() {
  Arena& arena = bench_.activations;
  out_ = arena.tensor(x_.dtype(), {plan_.targets, x_.cols()});
  sums_ = row_targets(plan_.finds_targets ? arena.tensor(x_.dtype(), x_.shape()) : out_);
  std::ranges::copy(row_targets(arena.tensor(x_.dtype(), behind_.shape())),
                    std::back_inserter(sums_));
  add_residuals(rail_rows(x_, behind_), sums_);
  received_ = bench_.exchange.finish_hand_out(bench_.op, arena, plan_, std::move(transfer_));
}

void ExchangeSubLayer::compute() {
  held_ = {bench_.activations.tensor(x_.dtype(), received_.values.shape()), {}};
  experts_.forward(bench_.op, plan_.slot_offsets, received_.values, received_.scalars,
                   held_.values);
}

void ExchangeSubLayer::collect() {
  bench_.exchange.finish_collect(bench_.op, plan_, std::move(transfer_), sums_, unfinished());
  const std::vector<const std::byte*> sums(sums_.begin(), sums_.end());
  transfer_ = bench_.exchange.begin_return(bench_.op, plan_, x_.dtype(), x_.cols(), sums);
}

void ExchangeSubLayer::gather() {
  bench_.exchange.finish_return(bench_.op, plan_, std::move(transfer_), row_targets(out_));
}

void ExchangeSubLayer::run_backward(std::size_t stage, const Tensor& dout) {
  switch (stage) {
    case 0:
      transfer_ = bench_.exchange.begin_spread_gradients(bench_.op, plan_, dout);
      return;
    case 1:
      dsums_ = bench_.exchange.finish_spread_gradients(plan_, std::move(transfer_));
      transfer_ =
          bench_.exchange.begin_hand_out(bench_.op, plan_, x_.dtype(), x_.cols(), dsums_.rows);
      return;
    case 2:
      return receive_gradients();
    case 3:
      return collect_gradients();
    default:
      gather_gradients();
  }
}

void ExchangeSubLayer::receive_gradients() {
  Arena& arena = bench_.activations;
  dx_ = arena.tensor(x_.dtype(), x_.shape());
  dbehind_ = arena.tensor(x_.dtype(), behind_.shape());
  sums_ = row_targets(dx_);
  std::ranges::copy(row_targets(dbehind_), std::back_inserter(sums_));
  add_residuals(dsums_.rows, sums_);
  const Rows dy = bench_.exchange.finish_hand_out(bench_.op, arena, plan_, std::move(transfer_));
  held_ = {arena.tensor(x_.dtype(), dy.values.shape()),
           arena.tensor(DType::f32, {dy.values.rows()})};
  experts_.backward(bench_.op, plan_.slot_offsets, received_.values, received_.scalars, dy.values,
                    held_.values, held_.scalars);
  transfer_ = bench_.exchange.begin_collect(bench_.op, plan_, held_);
}

void ExchangeSubLayer::collect_gradients() {
  const std::vector<float> choices =
      bench_.exchange.finish_collect(bench_.op, plan_, std::move(transfer_), sums_, unfinished());
  const std::vector<float> no_shared_expert(plan_.rails.size());
  transfer_ = bench_.exchange.begin_return_gradients(
      bench_.op, plan_, {.rows = dbehind_, .choices = choices, .shared_weights = no_shared_expert});
}

void ExchangeSubLayer::gather_gradients() {
  dgates_ = bench_.activations.tensor(DType::f32, {plan_.sources, plan_.choices});
  dweights_ = bench_.activations.tensor(DType::f32, {plan_.sources});
  bench_.exchange.finish_return_gradients(
      bench_.op, plan_, std::move(transfer_),
      {.rows = dx_, .gates = dgates_, .shared_weights = dweights_});
  dsums_ = {};
}

/// Rails whose sums begin with what the experts made.
std::vector<std::uint8_t> ExchangeSubLayer::unfinished() const {
  std::vector<std::uint8_t> fresh;
  for (const RailToken& rail : plan_.rails) {
    fresh.push_back(rail.finishes != 0 ? 0 : 1);
  }
  return fresh;
}

void ExchangeSubLayer::add_residuals(std::span<const std::byte* const> rows, RowTargets to) const {
  std::vector<std::byte*> finished;
  for (std::size_t rail = 0; rail < plan_.rails.size(); ++rail) {
    finished.push_back(plan_.rails[rail].finishes != 0 ? to[rail] : nullptr);
  }
  copy_rows(bench_.op, rows, finished, row_bytes(x_));
}

}  // namespace cartesian
