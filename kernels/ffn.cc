#include "kernels/ffn.h"

#include "kernels/swiglu.h"

namespace cartesian {

namespace {

/// The rows of expert `e` in `tensor`; undefined stays undefined.
Tensor rows_of(const Tensor& tensor, std::span<const std::int64_t> offsets, std::size_t e) {
  return tensor.defined() ? tensor.slice(offsets[e], offsets[e + 1] - offsets[e]) : tensor;
}

void check_groups(std::span<const FfnWeights> experts, std::span<const std::int64_t> offsets) {
  check(offsets.size() == experts.size() + 1, "ffn needs one more offset than experts");
}

}  // namespace

void ffn_forward(const Context& context, std::span<const FfnWeights> experts,
                 std::span<const std::int64_t> offsets, const Tensor& h, const Tensor& row_weights,
                 const Tensor& gate_up, const Tensor& y) {
  check_groups(experts, offsets);
  for (std::size_t e = 0; e < experts.size(); ++e) {
    const FfnWeights& expert = experts[e];
    const Tensor expert_gate_up = rows_of(gate_up, offsets, e);
    const ArenaScope scope(context.scratch);
    const Tensor a = context.scratch.tensor(expert.down.dtype(),
                                            {expert_gate_up.rows(), expert.down.in_features()});
    linear_forward(context, rows_of(h, offsets, e), expert.gate_up, expert_gate_up);
    swiglu_forward(context, expert_gate_up, rows_of(row_weights, offsets, e), a);
    linear_forward(context, a, expert.down, rows_of(y, offsets, e));
  }
}

void ffn_backward(const Context& context, std::span<const FfnWeights> experts,
                  std::span<const FfnGradients> gradients, std::span<const std::int64_t> offsets,
                  const Tensor& h, const Tensor& row_weights, const Tensor& gate_up,
                  const Tensor& dy, const Tensor& dh, const Tensor& drow_weights) {
  check_groups(experts, offsets);
  check(gradients.size() == experts.size(), "ffn_backward needs one gradient per expert");
  for (std::size_t e = 0; e < experts.size(); ++e) {
    const FfnWeights& expert = experts[e];
    const Tensor expert_h = rows_of(h, offsets, e);
    const Tensor expert_dy = rows_of(dy, offsets, e);
    const Tensor expert_gate_up = rows_of(gate_up, offsets, e);
    const ArenaScope scope(context.scratch);
    const Shape inner{expert_h.rows(), expert.down.in_features()};
    const Tensor a = context.scratch.tensor(expert.down.dtype(), inner);
    const Tensor da = context.scratch.tensor(expert.down.dtype(), inner);
    linear_backward_input(context, expert_dy, expert.down, da);
    swiglu_backward(context, expert_gate_up, rows_of(row_weights, offsets, e), da, expert_gate_up,
                    a, rows_of(drow_weights, offsets, e));
    linear_backward_weight(context, expert_dy, a, gradients[e].down);
    linear_backward_input(context, expert_gate_up, expert.gate_up, rows_of(dh, offsets, e));
    linear_backward_weight(context, expert_gate_up, expert_h, gradients[e].gate_up);
  }
}

}  // namespace cartesian
