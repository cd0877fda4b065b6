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

template <class T>
struct Backward {
  const T* x;
  const float* weight;
  const float* inv_rms;
  const T* dy;
  T* dx;
  std::int64_t hidden;

  // With r = inv_rms and n = x r: dx += r (dy w - n mean(dy w n)), sums += dy n.
  void row(std::int64_t t, float* sums) const {
    const T* in = x + t * hidden;
    const T* gradient = dy + t * hidden;
    T* out = dx + t * hidden;
    const float r = inv_rms[t];
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t c = 0; c < hidden; ++c) {
      sum += to_float(gradient[c]) * weight[c] * to_float(in[c]);
    }
    const float mean = sum * r * r / static_cast<float>(hidden);
#pragma omp simd
    for (std::int64_t c = 0; c < hidden; ++c) {
      const float value = to_float(in[c]);
      const float d = to_float(gradient[c]);
      sums[c] += d * (value * r);
      out[c] = from_float<T>(to_float(out[c]) + r * (d * weight[c] - value * mean));
    }
  }
};

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
  const ArenaScope scope(context.scratch);
  const std::int64_t blocks = (rows + kRows - 1) / kRows;
  auto* partial = context.scratch.tensor(DType::f32, {blocks, hidden}).data<float>();
  dispatch_float(x.dtype(), [&]<class T>(T) {
    const Backward<T> op{.x = x.data<T>(),
                         .weight = weight.data<float>(),
                         .inv_rms = inv_rms.data<float>(),
                         .dy = dy.data<T>(),
                         .dx = dx.data<T>(),
                         .hidden = hidden};
    parallel_blocks(context, rows, kRows, [&](std::int64_t begin, std::int64_t end) {
      float* sums = partial + begin / kRows * hidden;
      std::memset(sums, 0, static_cast<std::size_t>(hidden) * sizeof(float));
      for (std::int64_t t = begin; t < end; ++t) {
        op.row(t, sums);
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
