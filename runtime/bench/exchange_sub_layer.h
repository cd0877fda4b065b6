#pragma once
// ExchangeSubLayer: one chunk of one rank's tokens in one sub-layer of stand-in experts, by the
// exchange; a stage a call, as SubLayer's of the model (runtime/model/sub_layer.h).

#include <vector>

#include "base/context.h"
#include "comm/exchange.h"
#include "runtime/bench/exchange_case.h"
#include "runtime/bench/exchange_path.h"
#include "runtime/bench/stand_in_experts.h"

namespace cartesian {

/// What the chunks of a rank share.
struct ExchangeBench {
  const ExchangeCase& measured;
  Context& op;
  Exchange& exchange;
  Arena& activations;  ///< of one step
};

class ExchangeSubLayer {
 public:
  /// All must outlive it.
  ExchangeSubLayer(ExchangeBench& bench, const StandInExperts& experts, int group)
      : bench_(bench), experts_(experts), group_(group) {}

  static constexpr std::size_t kStages = 6;
  static constexpr std::size_t kGradientStages = 5;

  struct Home {
    std::int64_t first_token = 0;
    std::int64_t tokens = 0;  ///< of the chunk, at home on this rank
  };
  /// Runs one stage of forward. `x`: rows of `tokens`, needed until the step ends.
  void run(std::size_t stage, BenchSeconds& seconds);
  void begin(std::vector<SourceToken> tokens, const Tensor& x, const Home& home);
  /// Runs one stage of backward; `dout` at the first.
  void run_backward(std::size_t stage, const Tensor& dout);

  const ExchangePlan& plan() const { return plan_; }
  const std::vector<SourceToken>& tokens() const { return tokens_; }
  const Tensor& output() const { return out_; }             ///< after the last stage
  const Tensor& input_gradient() const { return dx_; }      ///< likewise
  const Tensor& gate_gradients() const { return dgates_; }  ///< [tokens, k], likewise

 private:
  void route();
  void spread();
  void hand_out();
  void receive();
  void compute();
  void collect();
  void gather();
  void receive_gradients();
  void collect_gradients();
  void gather_gradients();
  std::vector<std::uint8_t> unfinished() const;
  void add_residuals(std::span<const std::byte* const> rows, RowTargets to) const;
  std::int64_t rails_behind() const {
    return static_cast<std::int64_t>(plan_.rails.size()) - plan_.sources;
  }

  ExchangeBench& bench_;
  const StandInExperts& experts_;
  int group_;
  std::vector<SourceToken> tokens_;
  Home home_;
  ExchangePlan plan_;
  TransferPtr transfer_;
  Tensor x_, behind_, out_, dx_, dbehind_, dgates_, dweights_;
  Rows received_, held_;
  std::vector<std::byte*> sums_;  // [rails]
  HeldRows dsums_;
};

}  // namespace cartesian
