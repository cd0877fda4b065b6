#include "kernels/rms_norm.h"

#include "kernels/backends.h"

namespace cartesian {

namespace {

void check_sizes(const Tensor& x, const Tensor& weight, const Tensor& y, const Tensor& inv_rms) {
  check((x.dtype() == DType::f32 || x.dtype() == DType::bf16) && y.dtype() == x.dtype() &&
            y.shape() == x.shape() && x.shape().rank() == 2,
        "rms_norm needs float32 or bfloat16 rows of one shape and dtype");
  check(weight.dtype() == DType::f32 && weight.numel() == x.cols(),
        "rms_norm needs one float32 weight per column");
  check(inv_rms.dtype() == DType::f32 && inv_rms.numel() == x.rows(),
        "rms_norm needs one float32 inv_rms per row");
}

}  // namespace

void rms_norm_forward(const Context& context, const Tensor& x, const Tensor& weight, float eps,
                      const Tensor& y, const Tensor& inv_rms) {
  check_sizes(x, weight, y, inv_rms);
  if (x.numel() == 0) {
    return;
  }
  switch (context.device) {
    case Device::cpu:
      return cpu::rms_norm_forward(context, x, weight, eps, y, inv_rms);
    case Device::cuda:
      return cuda::rms_norm_forward(context, x, weight, eps, y, inv_rms);
  }
}

void rms_norm_backward(const Context& context, const Tensor& x, const Tensor& weight,
                       const Tensor& inv_rms, const Tensor& dy, const Tensor& dx,
                       const Tensor& dweight) {
  check_sizes(x, weight, dy, inv_rms);
  check(dx.dtype() == x.dtype() && dx.shape() == x.shape(), "rms_norm needs dx like x");
  check(dweight.dtype() == DType::f32 && dweight.numel() == x.cols(),
        "rms_norm needs one float32 dweight per column");
  if (x.numel() == 0) {
    return;
  }
  switch (context.device) {
    case Device::cpu:
      return cpu::rms_norm_backward(context, x, weight, inv_rms, dy, dx, dweight);
    case Device::cuda:
      return cuda::rms_norm_backward(context, x, weight, inv_rms, dy, dx, dweight);
  }
}

}  // namespace cartesian
