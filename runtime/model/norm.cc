#include "runtime/model/norm.h"

#include "kernels/rms_norm.h"

namespace cartesian {

Norm::Norm(ParameterStore& store, const std::string& name, std::int64_t hidden, double eps)
    : store_(store),
      weight_(store.add({{.name = name, .shape = {hidden}, .init_value = 1}}, {hidden})),
      eps_(static_cast<float>(eps)) {}

Tensor Norm::forward(RankContext& rank, const Tensor& x, Saved& saved) const {
  saved.x = x;
  saved.inv_rms = rank.activations.tensor(DType::f32, {x.rows()});
  const Tensor h = rank.activations.tensor(rank.dtype, x.shape());
  rms_norm_forward(rank.op, x, store_.weight(weight_), eps_, h, saved.inv_rms);
  return h;
}

void Norm::backward(RankContext& rank, const Saved& saved, const Tensor& dh,
                    const Tensor& dx) const {
  rms_norm_backward(rank.op, saved.x, store_.weight(weight_), saved.inv_rms, dh, dx,
                    store_.gradient(weight_));
}

}  // namespace cartesian
