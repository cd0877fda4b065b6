#include "kernels/gemm.h"

#include <utility>

#include "kernels/onednn.h"

namespace cartesian {

namespace {

/// Host memory that is kept while the size asked for stays the same.
class Buffer {
 public:
  Buffer() = default;
  ~Buffer() { resize(0); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  void resize(std::size_t bytes) {
    if (bytes == bytes_) {
      return;
    }
    if (data_ != nullptr) {
      HostAllocator().release(std::exchange(data_, nullptr), std::exchange(bytes_, 0));
    }
    if (bytes > 0) {
      data_ = HostAllocator().allocate(bytes);
      bytes_ = bytes;
    }
  }
  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

bool is_matrix(const Tensor& tensor, std::int64_t rows, std::int64_t cols) {
  return tensor.shape() == Shape{rows, cols};
}

}  // namespace

struct PackedWeight::Impl {
  std::int64_t out_features = 0;
  std::int64_t in_features = 0;
  DType dtype = DType::f32;
  Buffer forward;   ///< B = W^T [in, out]
  Buffer backward;  ///< B = W [out, in], or empty
};

PackedWeight::PackedWeight() : impl_(std::make_unique<Impl>()) {}
PackedWeight::~PackedWeight() = default;
PackedWeight::PackedWeight(PackedWeight&&) noexcept = default;
PackedWeight& PackedWeight::operator=(PackedWeight&&) noexcept = default;

void PackedWeight::pack(const Context& context, const Tensor& weight, DType dtype,
                        bool for_backward) {
  check(weight.shape().rank() == 2 && weight.dtype() == DType::f32,
        "a weight is a float32 matrix [out, in]");
  Impl& impl = *impl_;
  impl.out_features = weight.rows();
  impl.in_features = weight.cols();
  impl.dtype = dtype;
  impl.forward.resize(onednn::packed_bytes(dtype, impl.in_features, impl.out_features));
  onednn::pack(context, weight, onednn::Source::transposed, dtype, impl.forward.data());
  impl.backward.resize(
      for_backward ? onednn::packed_bytes(dtype, impl.out_features, impl.in_features) : 0);
  if (for_backward) {
    onednn::pack(context, weight, onednn::Source::plain, dtype, impl.backward.data());
  }
}

std::int64_t PackedWeight::out_features() const { return impl_->out_features; }
std::int64_t PackedWeight::in_features() const { return impl_->in_features; }
DType PackedWeight::dtype() const { return impl_->dtype; }
std::size_t PackedWeight::bytes() const { return impl_->forward.bytes() + impl_->backward.bytes(); }

void linear_forward(const Context& context, const Tensor& x, const PackedWeight& weight,
                    const Tensor& y) {
  const PackedWeight::Impl& w = weight.impl();
  check(is_matrix(x, x.rows(), w.in_features) && is_matrix(y, x.rows(), w.out_features),
        "linear_forward: x [rows, in], y [rows, out]");
  check(x.dtype() == w.dtype && (y.dtype() == w.dtype || y.dtype() == DType::f32),
        "linear_forward: x in the weight's dtype, y in it or float32");
  onednn::matmul(context,
                 {.m = x.rows(),
                  .n = w.out_features,
                  .k = w.in_features,
                  .inputs = w.dtype,
                  .output = y.dtype()},
                 x.raw(), w.forward.data(), y.raw());
}

void linear_backward_input(const Context& context, const Tensor& dy, const PackedWeight& weight,
                           const Tensor& dx) {
  const PackedWeight::Impl& w = weight.impl();
  check(is_matrix(dy, dy.rows(), w.out_features) && is_matrix(dx, dy.rows(), w.in_features),
        "linear_backward_input: dy [rows, out], dx [rows, in]");
  check(dy.dtype() == w.dtype && (dx.dtype() == w.dtype || dx.dtype() == DType::f32),
        "linear_backward_input: dy in the weight's dtype, dx in it or float32");
  check(w.backward.data() != nullptr || w.out_features * w.in_features == 0,
        "linear_backward_input needs a weight packed for backward");
  onednn::matmul(context,
                 {.m = dy.rows(),
                  .n = w.in_features,
                  .k = w.out_features,
                  .inputs = w.dtype,
                  .output = dx.dtype()},
                 dy.raw(), w.backward.data(), dx.raw());
}

void linear_backward_weight(const Context& context, const Tensor& dy, const Tensor& x,
                            const Tensor& dw) {
  const std::int64_t rows = x.rows();
  check(
      x.shape().rank() == 2 && is_matrix(dy, rows, dy.cols()) && is_matrix(dw, dy.cols(), x.cols()),
      "linear_backward_weight: dy [rows, out], x [rows, in], dw [out, in]");
  check(dy.dtype() == x.dtype() && dw.dtype() == DType::f32,
        "linear_backward_weight: dy and x of one dtype, dw float32");
  if (rows == 0) {
    return;
  }
  // Both operands are brought into the product's own layout first: oneDNN multiplies a transposed A
  // more slowly, and may then split the sum over rows among threads, which would change its bits.
  const ArenaScope scope(context.scratch);
  const Tensor dy_transposed = context.scratch.tensor(dy.dtype(), {dy.cols(), rows});
  onednn::transpose(context, dy, dy_transposed);
  void* packed_x = context.scratch.allocate(onednn::packed_bytes(x.dtype(), rows, x.cols()));
  onednn::pack(context, x, onednn::Source::plain, x.dtype(), packed_x);
  onednn::matmul(context,
                 {.m = dy.cols(),
                  .n = x.cols(),
                  .k = rows,
                  .inputs = x.dtype(),
                  .output = DType::f32,
                  .accumulate = true},
                 dy_transposed.raw(), packed_x, dw.raw());
}

}  // namespace cartesian
