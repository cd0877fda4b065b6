#pragma once
// Router: which sub-experts each token visits and with what weight, including the learned mix with
// the shared expert, whose coefficient is folded into the weights. Evaluated in float32. Its logits
// are learned from the token's hidden state, or for hash routing a fixed random row of its id.

#include <optional>
#include <string>
#include <vector>

#include "kernels/gemm.h"
#include "kernels/jitter.h"
#include "runtime/model/model_config.h"
#include "runtime/model/parameters.h"
#include "runtime/model/rank_context.h"

namespace cartesian {

/// Choices and probabilities of one sub-layer, summed over tokens: what the load-balancing loss and
/// the operator look at.
struct RouterLoad {
  std::vector<double> counts;         ///< [experts] (token, choice) pairs that chose the expert
  std::vector<double> probabilities;  ///< [experts] sums of router probabilities
  double z_loss = 0;  ///< sum of log_sum_exp^2 of the learned logits (kernels/z_loss.h)
};

/// A fixed random embedding of token ids as router logits: [vocab_size, experts], never trained.
inline constexpr const char* kHashTableName = "model.router_tokens.weight";

class Router {
 public:
  struct Input {
    Tensor h;                 ///< [tokens, hidden]
    Tensor hash_logits;       ///< [tokens, experts] float32; undefined unless routing is by hash
    std::int64_t masked = 0;  ///< so many of each token's most probable experts are left out
    Jitter jitter;            ///< of the router's input; the mix sees it plain
  };
  struct Saved {
    Tensor h;         ///< [tokens, hidden] float32
    Tensor jittered;  ///< likewise; undefined without jitter
    Jitter jitter;
    Tensor log_sum_exp;     ///< [tokens]; undefined unless logits are learned
    Tensor probabilities;   ///< [tokens, experts]
    Tensor experts;         ///< [tokens, k] int32; -1: no further choice
    Tensor gates;           ///< [tokens, k]
    Tensor coefficients;    ///< [tokens, 2] of the mix; undefined without a shared expert
    Tensor row_gates;       ///< [tokens, k] what a routed output is multiplied by
    Tensor shared_weights;  ///< [tokens] what each shared FFN's output is multiplied by; undefined
                            ///< without one
  };

  struct Names {
    std::string router;       ///< + ".weight"
    std::string mix;          ///< + ".weight", ".bias"
    std::string expert_bias;  ///< the whole name
  };
  Router(ParameterStore& store, const ModelConfig& config, const Names& names);

  void pack(const Context& context);
  /// Adds this call's choices to `load`.
  void forward(RankContext& rank, const Input& input, Saved& saved, RouterLoad& load) const;
  /// dh += the gradient of h. drow_gates [tokens, k], dshared_weights [tokens] or undefined;
  /// `losses` are those of the routing itself.
  struct LossGradient {
    Tensor dprobability;  ///< [experts] what every token's probabilities receive: load balancing
    float z_loss = 0;     ///< see RouterTraining
  };
  void backward(RankContext& rank, const Saved& saved, const Tensor& drow_gates,
                const Tensor& dshared_weights, const LossGradient& losses, const Tensor& dh) const;

  /// Moves every expert's bias by `rate` towards an even load: up where its count in `load` is
  /// below the mean, down where it is above. Returns the largest absolute bias; 0 without biases.
  float move_bias(const RouterLoad& load, double rate) const;

 private:
  /// Columns of the learned logits: the router's, then the mix's; either may be none.
  std::int64_t router_columns() const { return kind_ == RoutingKind::hash ? 0 : experts_; }
  std::int64_t columns() const { return router_columns() + (mixed_ ? 2 : 0); }
  /// `logits` become probabilities, in place.
  void choose(RankContext& rank, std::int64_t masked, const Saved& saved) const;
  void choose_backward(RankContext& rank, const Saved& saved, const Tensor& dgates,
                       const LossGradient& losses, const Tensor& dlogits) const;
  /// The learned logits [tokens, columns()].
  void logits_forward(RankContext& rank, const Saved& saved, const Tensor& logits) const;
  /// dh [tokens, hidden] from dlogits; adds to the weight's gradient.
  void logits_backward(RankContext& rank, const Saved& saved, const Tensor& dlogits,
                       const Tensor& dh) const;

  ParameterStore& store_;
  RoutingKind kind_;
  std::int64_t experts_;
  std::int64_t choices_;
  float threshold_;     ///< of top_p
  float shared_scale_;  ///< one over the number of shared FFNs
  bool mixed_;
  ParameterRef weight_;                      ///< [columns(), hidden]
  ParameterRef bias_;                        ///< [2] of the mix
  std::optional<ParameterRef> expert_bias_;  ///< [experts] with ModelConfig::router_bias
  PackedWeight packed_;
};

}  // namespace cartesian
