#pragma once
// SubLayer: x + c_0 * sum over chosen i of g_i FFN_i(norm(x)) + c_1 * FFN_shared(norm(x)): one
// routed MoE sub-layer, A or B of a CartesianMoE layer or the whole of a conventional one. It is a
// state machine: forward and backward are three stages each, and between stages a chunk's rows are
// on their way, so that another chunk may compute.
//
//   forward:  route    norm, router, plan begun          backward:  scatter  output's gradient sent
//   to the experts
//             send     plan finished, rows sent                     compute  experts' gradients,
//             rows sent back compute  shared expert, experts, rows back            gather router's
//             and norm's gradients gather   outputs summed

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
    std::int64_t first_token = 0;  ///< global index of its first token
    Norm::Saved norm;
    Tensor h;  ///< [tokens, hidden]
    Router::Saved router;
    ExchangePlan plan;
    TransferPtr transfer;                ///< the movement in flight
    Rows received;                       ///< rows and weights at the experts
    Tensor gate_up;                      ///< [received rows, 2 * width]
    std::vector<Tensor> shared_gate_up;  ///< of each shared FFN, [tokens, 2 * width]
    Tensor dh;                           ///< [tokens, hidden], in backward
    Tensor dshared_weights;              ///< [tokens], in backward
  };

  /// Adds its dense parameters to `store`; add_experts() adds the experts, after every layer's
  /// dense part.
  SubLayer(ParameterStore& store, const ModelConfig& config, SubLayerPosition position);
  void add_experts(const Placement& placement, int rank);

  void pack(const Context& context, DType dtype);

  struct Input {
    Tensor x;            ///< [tokens, hidden]
    Tensor hash_logits;  ///< see Router::Input
    Tensor speculative;  ///< see RoutedChunk
  };
  /// What route() would choose for `input.x`, [tokens, k] in the arena of activations; nothing is
  /// sent, counted or saved.
  Tensor speculate(RankContext& rank, const Input& input) const;
  void route(RankContext& rank, const Input& input, Chunk& chunk, RouterLoad& load) const;
  void send(RankContext& rank, Chunk& chunk) const;
  /// `out` [tokens, hidden] becomes x plus the shared expert's part.
  void compute(RankContext& rank, Chunk& chunk, const Tensor& out) const;
  /// out += the routed part.
  void gather(RankContext& rank, Chunk& chunk, const Tensor& out) const;

  /// dout must stay untouched until gather_gradients().
  void scatter_gradients(RankContext& rank, Chunk& chunk, const Tensor& dout) const;
  void compute_gradients(RankContext& rank, Chunk& chunk) const;
  /// dx holds the gradient of out and becomes that of x. dprobability [experts]: see
  /// Router::LossGradient.
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
  /// Of the rows from `first_token` of the micro-batch on; none outside training.
  Jitter jitter(const RankContext& rank, std::int64_t first_token) const;
  /// `out` becomes the shared FFNs' weighted sum; chunk.dh and chunk.dshared_weights their
  /// gradients.
  void shared_forward(RankContext& rank, Chunk& chunk, const Tensor& out) const;
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
