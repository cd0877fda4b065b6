#include <cmath>
#include <cstring>

#include "kernels/backends.h"
#include "kernels/dispatch.h"
#include "kernels/parallel.h"

namespace cartesian::cpu {

namespace {

// Rows whose contributions to dweight are summed together, in order; the blocks' sums are then
// added in order.
constexpr std::int64_t kRows = 64;

template <class T>
float inverse_rms(const T* x, std::int64_t hidden, float eps) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t c = 0; c < hidden; ++c) {
    const float value = to_float(x[c]);
    sum += value * value;
  }
  return 1.0F / std::sqrt(sum / static_cast<float>(hidden) + eps);
}

// With n = x * r, r = inv_rms: dx = r * (dy w - n * mean(dy w n)), dweight = dy n.
template <class T>
void backward_row(const T* x, const float* weight, float r, const T* dy, std::int64_t hidden, T* dx,
                  float* dweight) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t c = 0; c < hidden; ++c) {
    sum += to_float(dy[c]) * weight[c] * to_float(x[c]);
  }
  const float mean = sum * r * r / static_cast<float>(hidden);
#pragma omp simd
  for (std::int64_t c = 0; c < hidden; ++c) {
    const float value = to_float(x[c]);
    const float gradient = to_float(dy[c]);
    dweight[c] += gradient * (value * r);
    dx[c] = from_float<T>(to_float(dx[c]) + r * (gradient * weight[c] - value * mean));
  }
}

}  // namespace

void rms_norm_forward(const Context& context, const Tensor& x, const Tensor& weight, float eps,
                      const Tensor& y, const Tensor& inv_rms) {
  const std::int64_t hidden = x.cols();
  const auto* w = weight.data<float>();
  auto* inverse = inv_rms.data<float>();
  dispatch_float(x.dtype(), [&]<class T>(T) {
    const T* in = x.data<T>();
    T* out = y.data<T>();
    parallel_blocks(context, x.rows(), rows_per_block(hidden),
                    [=](std::int64_t begin, std::int64_t end) {
                      for (std::int64_t t = begin; t < end; ++t) {
                        const T* from = in + t * hidden;
                        T* to = out + t * hidden;
                        const float r = inverse_rms(from, hidden, eps);
                        inverse[t] = r;
#pragma omp simd
                        for (std::int64_t c = 0; c < hidden; ++c) {
                          to[c] = from_float<T>(w[c] * (to_float(from[c]) * r));
                        }
                      }
                    });
  });
}

void rms_norm_backward(const Context& context, const Tensor& x, const Tensor& weight,
                       const Tensor& inv_rms, const Tensor& dy, const Tensor& dx,
                       const Tensor& dweight) {
  const std::int64_t rows = x.rows();
  const std::int64_t hidden = x.cols();
  const auto* w = weight.data<float>();
  const auto* inverse = inv_rms.data<float>();
  const ArenaScope scope(context.scratch);
  const std::int64_t blocks = (rows + kRows - 1) / kRows;
  auto* partial = context.scratch.tensor(DType::f32, {blocks, hidden}).data<float>();
  dispatch_float(x.dtype(), [&]<class T>(T) {
    const T* in = x.data<T>();
    const T* gradient = dy.data<T>();
    T* out = dx.data<T>();
    parallel_blocks(context, rows, kRows, [=](std::int64_t begin, std::int64_t end) {
      float* sums = partial + begin / kRows * hidden;
      std::memset(sums, 0, static_cast<std::size_t>(hidden) * sizeof(float));
      for (std::int64_t t = begin; t < end; ++t) {
        backward_row(in + t * hidden, w, inverse[t], gradient + t * hidden, hidden,
                     out + t * hidden, sums);
      }
    });
  });
  auto* total = dweight.data<float>();
  constexpr std::int64_t kColumns = 256;
  parallel_blocks(context, hidden, kColumns, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = 0; b < blocks; ++b) {
#pragma omp simd
      for (std::int64_t c = begin; c < end; ++c) {
        total[c] += partial[b * hidden + c];
      }
    }
  });
}

}  // namespace cartesian::cpu
