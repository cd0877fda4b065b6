#include "kernels/ffn.h"

#include <algorithm>

#include "kernels/swiglu.h"

namespace cartesian {

namespace {

/// Some rows of `tensor`; undefined stays undefined.
Tensor rows_of(const Tensor& tensor, std::int64_t begin, std::int64_t count) {
  return tensor.defined() ? tensor.slice(begin, count) : tensor;
}

/// Calls body(expert, begin, count) for pieces of every expert's rows, so that what is between an
/// FFN's products stays in the cache from one op to the next, and needs memory for one piece only.
/// Each piece reads and writes the weights' gradients: fewer rows would do so too often. The pieces
/// do not depend on the threads, or sums would.
template <class Body>
void for_pieces(std::span<const std::int64_t> offsets, Body body) {
  constexpr std::int64_t kRows = 512;
  for (std::size_t e = 0; e + 1 < offsets.size(); ++e) {
    for (std::int64_t begin = offsets[e]; begin < offsets[e + 1]; begin += kRows) {
      body(e, begin, std::min(kRows, offsets[e + 1] - begin));
    }
  }
}

void check_groups(std::span<const FfnWeights> experts, std::span<const std::int64_t> offsets) {
  check(offsets.size() == experts.size() + 1, "ffn needs one more offset than experts");
}

}  // namespace

void ffn_forward(const Context& context, std::span<const FfnWeights> experts,
                 std::span<const std::int64_t> offsets, const Tensor& h, const Tensor& row_weights,
                 const Tensor& gate_up, const Tensor& y) {
  check_groups(experts, offsets);
  for_pieces(offsets, [&](std::size_t e, std::int64_t begin, std::int64_t count) {
    const FfnWeights& expert = experts[e];
    const Tensor piece_gate_up = gate_up.slice(begin, count);
    const ArenaScope scope(context.scratch);
    const Tensor a =
        context.scratch.tensor(expert.down.dtype(), {count, expert.down.in_features()});
    linear_forward(context, h.slice(begin, count), expert.gate_up, piece_gate_up);
    swiglu_forward(context, piece_gate_up, rows_of(row_weights, begin, count), a);
    linear_forward(context, a, expert.down, y.slice(begin, count));
  });
}

void ffn_backward(const Context& context, std::span<const FfnWeights> experts,
                  std::span<const FfnGradients> gradients, std::span<const std::int64_t> offsets,
                  const Tensor& h, const Tensor& row_weights, const Tensor& gate_up,
                  const Tensor& dy, const Tensor& dh, const Tensor& drow_weights) {
  check_groups(experts, offsets);
  check(gradients.size() == experts.size(), "ffn_backward needs one gradient per expert");
  for_pieces(offsets, [&](std::size_t e, std::int64_t begin, std::int64_t count) {
    const FfnWeights& expert = experts[e];
    const Tensor piece_h = h.slice(begin, count);
    const Tensor piece_dy = dy.slice(begin, count);
    const Tensor piece_gate_up = gate_up.slice(begin, count);
    const ArenaScope scope(context.scratch);
    const Shape inner{count, expert.down.in_features()};
    const Tensor a = context.scratch.tensor(expert.down.dtype(), inner);
    const Tensor da = context.scratch.tensor(expert.down.dtype(), inner);
    const Tensor dgate_up = context.scratch.tensor(expert.down.dtype(), piece_gate_up.shape());
    linear_backward_input(context, piece_dy, expert.down, da);
    swiglu_backward(context, piece_gate_up, rows_of(row_weights, begin, count), da, dgate_up, a,
                    rows_of(drow_weights, begin, count));
    linear_backward_weight(context, piece_dy, a, gradients[e].down);
    linear_backward_input(context, dgate_up, expert.gate_up, dh.slice(begin, count));
    linear_backward_weight(context, dgate_up, piece_h, gradients[e].gate_up);
  });
}

}  // namespace cartesian
