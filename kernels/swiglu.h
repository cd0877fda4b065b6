#pragma once
// SwiGLU activation (Shazeer, arXiv 2002.05202) with an optional weight per row: a = w * silu(gate)
// * up. The weight folds a router's gate into the activation, so that W_down a is already weighted
// and the gate's gradient is the scalar <da, a / w>, found where the expert ran. Element-wise,
// float32 inside.

#include "base/context.h"

namespace cartesian {

/// gate_up [rows, 2 * width]: gate, then up. weights [rows] float32 or undefined (all one). a
/// [rows, width]. gate_up and a have one dtype, float32 or bfloat16.
void swiglu_forward(const Context& context, const Tensor& gate_up, const Tensor& weights,
                    const Tensor& a);

/// From da [rows, width] (the gradient of a): dgate_up [rows, 2 * width], a (recomputed, as forward
/// wrote it) and, where weights are given, dweights [rows] float32. dgate_up may be gate_up itself.
void swiglu_backward(const Context& context, const Tensor& gate_up, const Tensor& weights,
                     const Tensor& da, const Tensor& dgate_up, const Tensor& a,
                     const Tensor& dweights);

}  // namespace cartesian
