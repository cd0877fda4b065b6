#pragma once
// SubLayer: x + c_0 * sum over chosen i of g_i FFN_i(norm(x)) + c_1 * FFN_shared(norm(x)): one
// routed MoE sub-layer, A or B of a CartesianMoE layer or the whole of a conventional one. It is a
// state machine: between its stages a chunk's rows are on their way (comm/exchange_plan.h), so that
// another chunk may compute.
//
//   forward, at   sources  route        norm, router, plan begun
//                          send         plan finished, rows to the rails
//                 rails    hand_out     norm of what came, rows to the experts
//                 experts  compute      shared expert where this rank finishes, experts, rows back
//                 rails    collect      summed, to the targets
//                 targets  gather       summed
//   backward, at  targets  scatter_gradients   of the output to the rails
//                 rails    hand_out_gradients  to the experts; shared expert's
//                 experts  compute_gradients   back
//                 rails    collect_gradients   summed, norm's, to the sources
//                 sources  gather_gradients    summed, router's and norm's
#include <vector>

#include "runtime/model/linear.h"
#include "runtime/model/model_config.h"
#include "runtime/model/norm.h"
#include "runtime/model/router.h"

namespace cartesian {

/// Where a sub-layer stands in the model.
struct SubLayerPosition {
  int block = 0;  ///< block index
  int layer = 0;  ///< MoE layer: 0, 1, ...
  int group = 0;  ///< 0 = A, 1 = B
};

class SubLayer {
 public:
  /// What one chunk of tokens needs from one stage to a later one, and to backward.
  struct Chunk {
    ExchangePlan plan;
    TransferPtr transfer;  ///< the step in flight

    // Sources, [sources, ...].
    std::vector<std::int32_t> token_numbers;
    Norm::Saved norm;
    Tensor h;
    Router::Saved router;
    // Rails behind the sources, [those, ...].
    Norm::Saved rail_norm;
    Tensor rail_h;
    /// Rails that this rank finishes; `all_sources` if they are the sources.
    std::vector<std::int32_t> finished;
    bool all_sources = false;
    // Of the rails that are finished, [those, ...]: views of the sources' if they are these.
    Tensor shared_h;
    Tensor shared_weights;
    std::vector<Tensor> shared_gate_up;  ///< of each shared FFN, [finished, 2 * width]
    // Experts.
    Rows received;   ///< rows and gates
    Tensor gate_up;  ///< [received rows, 2 * width]
    // Rails, while sums are on their way.
    Tensor sums;       ///< [sources, hidden]: may be the output itself
    Tensor rail_sums;  ///< of those behind them
    std::vector<std::byte*> sum_rows;
    // Backward.
    HeldRows dsums;          ///< gradients of the rails' sums
    Tensor dshared_h;        ///< [finished, hidden]
    Tensor dshared_weights;  ///< [finished]
    Tensor dh;               ///< [sources, hidden]
  };

  /// Adds its dense parameters to `store`; add_experts() adds the experts, after every layer's
  /// dense part. Once the store's experts were removed, it may be called again.
  SubLayer(ParameterStore& store, const ModelConfig& config, SubLayerPosition position);
  void add_experts(const Placement& placement, int rank);

  void pack(const Context& context, DType dtype);

  struct Input {
    Tensor x;            ///< [sources, hidden]; must stay valid until backward
    Tensor hash_logits;  ///< see Router::Input
    std::span<const SourceToken> tokens;
    Tensor expected;  ///< see TokenRouting
    std::int64_t first_home_token = 0;
    std::int64_t home_tokens = 0;
  };
  /// What route() would choose for `input.x`, [sources, k] in the arena of activations; nothing is
  /// sent, counted or saved.
  Tensor speculate(RankContext& rank, const Input& input) const;
  /// Stages of forward, then those of backward, in order.
  static constexpr std::size_t kStages = 6;
  static constexpr std::size_t kGradientStages = 5;
  void route(RankContext& rank, const Input& input, Chunk& chunk, RouterLoad& load) const;
  void send(RankContext& rank, Chunk& chunk) const;
  /// Afterwards chunk.plan.targets is known.
  void hand_out(RankContext& rank, Chunk& chunk) const;
  /// `out` [targets, hidden]: where gather() will leave the result.
  void compute(RankContext& rank, Chunk& chunk, const Tensor& out) const;
  void collect(RankContext& rank, Chunk& chunk) const;
  void gather(RankContext& rank, Chunk& chunk, const Tensor& out) const;

  /// dout [targets, hidden] must stay untouched until gather_gradients(), but for being dx.
  void scatter_gradients(RankContext& rank, Chunk& chunk, const Tensor& dout) const;
  void hand_out_gradients(RankContext& rank, Chunk& chunk) const;
  void compute_gradients(RankContext& rank, Chunk& chunk) const;
  void collect_gradients(RankContext& rank, Chunk& chunk) const;
  /// dx [sources, hidden] becomes the gradient of x; it may be dout where targets are the sources.
  /// dprobability [experts]: see Router::LossGradient.
  void gather_gradients(RankContext& rank, Chunk& chunk, const Tensor& dprobability,
                        const Tensor& dx) const;

  /// See Router::move_bias().
  float move_bias(const RouterLoad& load, double rate) const {
    return router_.move_bias(load, rate);
  }

  const SubLayerPosition& position() const { return position_; }

 private:
  Router::Input router_input(const RankContext& rank, const Tensor& h,
                             const Tensor& hash_logits) const;
  /// None outside training. The numbers must outlive it.
  Jitter jitter(const RankContext& rank, std::span<const std::int32_t> token_numbers) const;
  void find_finished(RankContext& rank, Chunk& chunk) const;
  /// The finished rails' sums begin with x and the shared FFNs' weighted sum.
  void finish_rails(RankContext& rank, Chunk& chunk) const;
  void shared_forward(RankContext& rank, Chunk& chunk, const Tensor& out) const;
  /// chunk.dshared_h and chunk.dshared_weights from the gradient of the finished rails' sums.
  void shared_backward(RankContext& rank, Chunk& chunk, const Tensor& dout) const;

  ParameterStore& store_;
  ModelConfig config_;
  SubLayerPosition position_;
  Norm norm_;
  Router router_;
  std::vector<FfnParameters> shared_;
  std::vector<FfnWeights> shared_weights_;
  std::vector<FfnParameters> experts_;  ///< this rank's, by slot
  std::vector<FfnWeights> expert_weights_;
};

}  // namespace cartesian
