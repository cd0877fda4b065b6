#include "kernels/gemm.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "kernels/block_gemm.h"
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

/// Calls body(begin, count) for pieces of [0, rows). Token counts per expert change all the time,
/// and each new size costs oneDNN milliseconds and some 100 KiB of generated code; so rows are
/// served in pieces of eight sizes per octave, (8..15) * 2^j: the largest that fits and is at most
/// `most`, then the rest.
template <class Body>
void for_pieces(std::int64_t rows, std::int64_t most, Body body) {
  for (std::int64_t begin = 0; begin < rows;) {
    const std::int64_t left = std::min(rows - begin, most);
    const int shift =
        std::max(0, static_cast<int>(std::bit_width(static_cast<std::uint64_t>(left))) - 4);
    const std::int64_t count = left >> shift << shift;
    body(begin, count);
    begin += count;
  }
}

using block_gemm::Order;

// A packed B is oneDNN's where that multiplies the dtype, else block_gemm's.

std::size_t packed_bytes(DType dtype, std::int64_t k, std::int64_t n) {
  return onednn::multiplies(dtype)
             ? onednn::packed_bytes(dtype, k, n)
             : static_cast<std::size_t>(block_gemm::packed_floats(k, n)) * sizeof(float);
}

void pack(const Context& context, const Tensor& b, Order order, DType dtype, void* packed) {
  if (onednn::multiplies(dtype)) {
    const auto source = order == Order::plain ? onednn::Source::plain : onednn::Source::transposed;
    onednn::pack(context, b, source, dtype, packed);
  } else {
    block_gemm::pack(context, b, order, dtype, static_cast<float*>(packed));
  }
}

/// y [rows, n] = x [rows, k] B.
void multiply(const Context& context, const Tensor& x, const void* packed_b, const Tensor& y) {
  if (!onednn::multiplies(x.dtype())) {
    block_gemm::multiply(
        context, {.m = x.rows(), .n = y.cols(), .k = x.cols(), .a = x.dtype(), .c = y.dtype()},
        x.raw(), static_cast<const float*>(packed_b), y.raw());
    return;
  }
  for_pieces(x.rows(), x.rows(), [&](std::int64_t begin, std::int64_t count) {
    const onednn::Matmul sizes{
        .m = count, .n = y.cols(), .k = x.cols(), .inputs = x.dtype(), .output = y.dtype()};
    onednn::matmul(context, sizes, x.slice(begin, count).raw(), packed_b,
                   y.slice(begin, count).raw());
  });
}

/// dw += dy^T x.
void add_weight_gradient(const Context& context, const Tensor& dy, const Tensor& x,
                         const Tensor& dw) {
  if (onednn::multiplies(x.dtype())) {
    for_pieces(x.rows(), onednn::kMaxSummedRows, [&](std::int64_t begin, std::int64_t count) {
      onednn::add_transposed_product(context, dy.slice(begin, count), x.slice(begin, count), dw);
    });
    return;
  }
  const ArenaScope scope(context.scratch);
  void* packed_x = context.scratch.allocate(packed_bytes(x.dtype(), x.rows(), x.cols()));
  pack(context, x, Order::plain, x.dtype(), packed_x);
  block_gemm::multiply(context,
                       {.m = dy.cols(),
                        .n = x.cols(),
                        .k = x.rows(),
                        .a = dy.dtype(),
                        .a_order = Order::transposed,
                        .accumulate = true},
                       dy.raw(), static_cast<const float*>(packed_x), dw.raw());
}

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
  impl.forward.resize(packed_bytes(dtype, impl.in_features, impl.out_features));
  cartesian::pack(context, weight, Order::transposed, dtype, impl.forward.data());
  impl.backward.resize(for_backward ? packed_bytes(dtype, impl.out_features, impl.in_features) : 0);
  if (for_backward) {
    cartesian::pack(context, weight, Order::plain, dtype, impl.backward.data());
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
  multiply(context, x, w.forward.data(), y);
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
  multiply(context, dy, w.backward.data(), dx);
}

void linear_backward_weight(const Context& context, const Tensor& dy, const Tensor& x,
                            const Tensor& dw) {
  const std::int64_t rows = x.rows();
  check(
      x.shape().rank() == 2 && is_matrix(dy, rows, dy.cols()) && is_matrix(dw, dy.cols(), x.cols()),
      "linear_backward_weight: dy [rows, out], x [rows, in], dw [out, in]");
  check(dy.dtype() == x.dtype() && dw.dtype() == DType::f32,
        "linear_backward_weight: dy and x of one dtype, dw float32");
  add_weight_gradient(context, dy, x, dw);
}

}  // namespace cartesian
