#include "kernels/permute.h"

#include "kernels/backends.h"

namespace cartesian {

void permute_rows(const Context& context, const Tensor& x, const Tensor& source, const Tensor& y) {
  check(x.dtype() == y.dtype() && (x.dtype() == DType::f32 || x.dtype() == DType::bf16),
        "permute_rows needs float32 or bfloat16 rows of one dtype");
  check(x.cols() == y.cols(), "permute_rows keeps the row size");
  check(source.dtype() == DType::i32 && source.numel() == y.rows(),
        "permute_rows needs one int32 source per row");
  if (y.numel() == 0) {
    return;
  }
  switch (context.device) {
    case Device::cpu:
      return cpu::permute_rows(context, x, source, y);
    case Device::cuda:
      return cuda::permute_rows(context, x, source, y);
  }
}

void unpermute_rows(const Context& context, const Tensor& y, const Tensor& positions,
                    const Tensor& weights, const Tensor& out) {
  check(y.dtype() == out.dtype() && (y.dtype() == DType::f32 || y.dtype() == DType::bf16),
        "unpermute_rows needs float32 or bfloat16 rows of one dtype");
  check(y.cols() == out.cols(), "unpermute_rows keeps the row size");
  check(positions.dtype() == DType::i32 && positions.shape().rank() == 2 &&
            positions.rows() == out.rows(),
        "unpermute_rows needs int32 positions [rows, k]");
  check(
      !weights.defined() || (weights.dtype() == DType::f32 && weights.shape() == positions.shape()),
      "unpermute_rows needs one float32 weight per position");
  if (out.numel() == 0) {
    return;
  }
  switch (context.device) {
    case Device::cpu:
      return cpu::unpermute_rows(context, y, positions, weights, out);
    case Device::cuda:
      return cuda::unpermute_rows(context, y, positions, weights, out);
  }
}

}  // namespace cartesian
