#pragma once
// Router: which sub-experts each token visits and with what weight, including the learned mix with
// the shared expert, whose coefficient is folded into the weights. Evaluated in float32.

#include <string>
#include <vector>

#include "kernels/gemm.h"
#include "runtime/model/model_config.h"
#include "runtime/model/parameters.h"
#include "runtime/model/rank_context.h"

namespace cartesian {

/// Choices and probabilities of one sub-layer, summed over tokens: what the load-balancing loss and
/// the operator look at.
struct RouterLoad {
  std::vector<double> counts;         ///< [experts] (token, choice) pairs that chose the expert
  std::vector<double> probabilities;  ///< [experts] sums of router probabilities
};

class Router {
 public:
  struct Saved {
    Tensor h;               ///< [tokens, hidden] float32
    Tensor probabilities;   ///< [tokens, experts]
    Tensor experts;         ///< [tokens, k] int32
    Tensor gates;           ///< [tokens, k]
    Tensor coefficients;    ///< [tokens, 2] of the mix; undefined without a shared expert
    Tensor row_gates;       ///< [tokens, k] what a routed output is multiplied by
    Tensor shared_weights;  ///< [tokens] what the shared output is multiplied by; undefined without
                            ///< one
  };

  /// Names: prefix + router_name (+ ".weight"), prefix + mix_name (+ ".weight", ".bias").
  Router(ParameterStore& store, const ModelConfig& config, const std::string& router_name,
         const std::string& mix_name);

  void pack(const Context& context);
  /// h [tokens, hidden]. Adds this call's choices to `load`.
  void forward(RankContext& rank, const Tensor& h, Saved& saved, RouterLoad& load) const;
  /// dh += the gradient of h. drow_gates [tokens, k], dshared_weights [tokens] or undefined;
  /// dprobability [experts] is what every token's probabilities receive from the load-balancing
  /// loss.
  void backward(RankContext& rank, const Saved& saved, const Tensor& drow_gates,
                const Tensor& dshared_weights, const Tensor& dprobability, const Tensor& dh) const;

 private:
  ParameterStore& store_;
  std::int64_t experts_;
  std::int64_t top_k_;
  bool mixed_;
  ParameterRef weight_;  ///< [experts (+ 2), hidden]: router, then mix
  ParameterRef bias_;    ///< [2]
  PackedWeight packed_;
};

}  // namespace cartesian
