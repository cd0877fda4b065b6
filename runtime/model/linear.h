#pragma once
// Linear: a bias-free matrix [out, in] with its packed copy, as blocks use it. Also the parameters
// of SwiGLU FFNs.

#include <string>
#include <vector>

#include "kernels/ffn.h"
#include "kernels/gemm.h"
#include "runtime/model/parameters.h"
#include "runtime/model/rank_context.h"

namespace cartesian {

class Linear {
 public:
  /// One name, or several that lie side by side and split `out` evenly. `store` must outlive the
  /// layer.
  Linear(ParameterStore& store, const std::vector<std::string>& names, std::int64_t out,
         std::int64_t in, double init_std);

  /// Packs the current weights; call after every change of them.
  void pack(const Context& context, DType dtype);
  /// y = x W^T.
  void forward(RankContext& rank, const Tensor& x, const Tensor& y) const;
  /// dx = dy W, and the weight's gradient += dy^T x.
  void backward(RankContext& rank, const Tensor& x, const Tensor& dy, const Tensor& dx) const;

 private:
  ParameterStore& store_;
  ParameterRef weight_;
  PackedWeight packed_;
};

/// The weights of one SwiGLU FFN in a ParameterStore: an expert, a shared expert or a dense block's
/// FFN.
class FfnParameters {
 public:
  /// Names are prefix + "{gate,up,down}_proj.weight".
  FfnParameters(ParameterStore& store, const std::string& prefix, std::int64_t hidden,
                std::int64_t width, double init_std, double down_init_std);

  void pack(const Context& context, ParameterStore& store, DType dtype, FfnWeights& packed) const;
  FfnGradients gradients(ParameterStore& store) const;

 private:
  ParameterRef gate_up_;
  ParameterRef down_;
};

/// The standard deviation of projections back into the residual stream: smaller by the square root
/// of how many there are (Radford et al., GPT-2).
double residual_init_std(const struct ModelConfig& config);

}  // namespace cartesian
