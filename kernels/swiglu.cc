#include "kernels/swiglu.h"

#include "kernels/dispatch.h"
#include "kernels/fast_exp.h"
#include "kernels/parallel.h"

namespace cartesian {

namespace {

/// silu(gate) * up, in one place so that backward recomputes the bits that forward wrote.
struct Activation {
  Activation(float gate_value, float up_value)
      : gate(gate_value),
        up(up_value),
        sigmoid(fast_sigmoid(gate)),
        silu(gate * sigmoid),
        value(silu * up) {}
  /// d silu / d gate.
  float slope() const { return sigmoid + silu * (1.0F - sigmoid); }

  float gate, up, sigmoid, silu, value;
};

template <class T>
void forward_row(const T* gate_up, float weight, std::int64_t width, T* a) {
#pragma omp simd
  for (std::int64_t c = 0; c < width; ++c) {
    const Activation activation(to_float(gate_up[c]), to_float(gate_up[width + c]));
    a[c] = from_float<T>(weight * activation.value);
  }
}

/// Returns the gradient of `weight`. dgate_up may be gate_up.
template <class T>
float backward_row(const T* gate_up, float weight, const T* da, std::int64_t width, T* dgate_up,
                   T* a) {
  float dweight = 0;
#pragma omp simd reduction(+ : dweight)
  for (std::int64_t c = 0; c < width; ++c) {
    const Activation activation(to_float(gate_up[c]), to_float(gate_up[width + c]));
    const float gradient = to_float(da[c]);
    const float weighted = weight * gradient;
    a[c] = from_float<T>(weight * activation.value);
    dgate_up[c] = from_float<T>(weighted * activation.up * activation.slope());
    dgate_up[width + c] = from_float<T>(weighted * activation.silu);
    dweight += gradient * activation.value;
  }
  return dweight;
}

void check_sizes(const Context& context, const Tensor& gate_up, const Tensor& weights,
                 const Tensor& a) {
  check_cpu(context, "swiglu");
  check(gate_up.shape().rank() == 2 && a.shape() == Shape{gate_up.rows(), gate_up.cols() / 2} &&
            gate_up.cols() % 2 == 0 && a.dtype() == gate_up.dtype(),
        "swiglu needs gate_up [rows, 2 * width] and a [rows, width] of one dtype");
  check(!weights.defined() || (weights.dtype() == DType::f32 && weights.numel() == a.rows()),
        "swiglu needs one float32 weight per row");
}

}  // namespace

void swiglu_forward(const Context& context, const Tensor& gate_up, const Tensor& weights,
                    const Tensor& a) {
  check_sizes(context, gate_up, weights, a);
  const std::int64_t width = a.cols();
  const float* row_weights = weights.defined() ? weights.data<float>() : nullptr;
  dispatch_float(a.dtype(), [&]<class T>(T) {
    const T* in = gate_up.data<T>();
    T* out = a.data<T>();
    const auto rows = [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        const float weight = row_weights == nullptr ? 1.0F : row_weights[t];
        forward_row(in + t * 2 * width, weight, width, out + t * width);
      }
    };
    parallel_blocks(context, a.rows(), rows_per_block(width), rows);
  });
}

void swiglu_backward(const Context& context, const Tensor& gate_up, const Tensor& weights,
                     const Tensor& da, const Tensor& dgate_up, const Tensor& a,
                     const Tensor& dweights) {
  check_sizes(context, gate_up, weights, a);
  check(da.shape() == a.shape() && da.dtype() == a.dtype() && dgate_up.shape() == gate_up.shape() &&
            dgate_up.dtype() == a.dtype(),
        "swiglu_backward needs gradients like what they are gradients of");
  check(
      dweights.defined() == weights.defined() &&
          (!weights.defined() || (dweights.dtype() == DType::f32 && dweights.numel() == a.rows())),
      "swiglu_backward needs one float32 dweight per weight");
  const std::int64_t width = a.cols();
  const float* row_weights = weights.defined() ? weights.data<float>() : nullptr;
  float* row_gradients = weights.defined() ? dweights.data<float>() : nullptr;
  dispatch_float(a.dtype(), [&]<class T>(T) {
    const T* in = gate_up.data<T>();
    const T* gradient = da.data<T>();
    T* din = dgate_up.data<T>();
    T* out = a.data<T>();
    const auto rows = [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        const float weight = row_weights == nullptr ? 1.0F : row_weights[t];
        const float dweight = backward_row(in + t * 2 * width, weight, gradient + t * width, width,
                                           din + t * 2 * width, out + t * width);
        if (row_gradients != nullptr) {
          row_gradients[t] = dweight;
        }
      }
    };
    parallel_blocks(context, a.rows(), rows_per_block(width), rows);
  });
}

}  // namespace cartesian
