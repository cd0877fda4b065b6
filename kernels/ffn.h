#pragma once
// SwiGLU feed-forward networks over grouped rows: the experts of one rank, a shared expert or a
// dense block's FFN (one group) alike. Rows [offsets[e], offsets[e + 1]) belong to expert e. y =
// W_down (w * silu(W_gate h) * (W_up h)).

#include <cstdint>
#include <span>

#include "base/context.h"
#include "kernels/gemm.h"

namespace cartesian {

/// One FFN's packed weights.
struct FfnWeights {
  PackedWeight gate_up;  ///< [2 * width, hidden]: gate, then up
  PackedWeight down;     ///< [hidden, width]
};

/// One FFN's weight gradients, float32, accumulated into.
struct FfnGradients {
  Tensor gate_up;  ///< [2 * width, hidden]
  Tensor down;     ///< [hidden, width]
};

/// h [rows, hidden], row_weights [rows] float32 or undefined, y [rows, hidden]; gate_up [rows, 2 *
/// width] is saved for backward. Rows outside offsets are not touched. REQUIRES: offsets.size() ==
/// experts.size() + 1, ascending.
void ffn_forward(const Context& context, std::span<const FfnWeights> experts,
                 std::span<const std::int64_t> offsets, const Tensor& h, const Tensor& row_weights,
                 const Tensor& gate_up, const Tensor& y);

/// From dy [rows, hidden]: dh [rows, hidden], drow_weights [rows] float32 (undefined where
/// row_weights is), and the weight gradients, accumulated. Padding rows must be zero in h and dy.
void ffn_backward(const Context& context, std::span<const FfnWeights> experts,
                  std::span<const FfnGradients> gradients, std::span<const std::int64_t> offsets,
                  const Tensor& h, const Tensor& row_weights, const Tensor& gate_up,
                  const Tensor& dy, const Tensor& dh, const Tensor& drow_weights);

}  // namespace cartesian
