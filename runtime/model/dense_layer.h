#pragma once
// DenseLayer: x + FFN(norm(x)): the FFN of a block that is not MoE.

#include "runtime/model/linear.h"
#include "runtime/model/model_config.h"
#include "runtime/model/norm.h"

namespace cartesian {

class DenseLayer {
 public:
  struct Saved {
    Norm::Saved norm;
    Tensor h;        ///< [tokens, hidden]
    Tensor gate_up;  ///< [tokens, 2 * width]
  };

  DenseLayer(ParameterStore& store, const ModelConfig& config, std::int64_t block);

  void pack(const Context& context, DType dtype);
  /// x, out [tokens, hidden]; x must stay valid until backward.
  void forward(RankContext& rank, const Tensor& x, const Tensor& out, Saved& saved) const;
  /// dx holds the gradient of out and becomes that of x. Overwrites what was saved.
  void backward(RankContext& rank, const Saved& saved, const Tensor& dx) const;

 private:
  ParameterStore& store_;
  std::int64_t width_;
  Norm norm_;
  FfnParameters parameters_;
  FfnWeights weights_;
};

}  // namespace cartesian
