#include "kernels/backends.h"
#include "kernels/cuda_rows.cuh"

namespace cartesian::cuda {

namespace {

// dweight is summed in two stages of fixed order, without atomics: rows within a chunk, then
// chunks.
constexpr std::int64_t kChunkRows = 64;
constexpr int kColumnThreads = 128;

template <class T, int kCount>
__global__ void forward_kernel(const Vector<T, kCount>* x, const Vector<float, kCount>* weight,
                               float eps, Vector<T, kCount>* y, float* inv_rms, std::int64_t rows,
                               std::int64_t vectors) {
  const std::int64_t row = row_of_warp();
  if (row >= rows) {
    return;
  }
  float sum = 0;
  for (std::int64_t v = threadIdx.x; v < vectors; v += kWarp) {
    const Vector<T, kCount> in = x[row * vectors + v];
    for (int i = 0; i < kCount; ++i) {
      const float value = to_float(in.values[i]);
      sum += value * value;
    }
  }
  const float mean = warp_sum(sum) / static_cast<float>(vectors * kCount);
  const float r = 1.0F / sqrtf(mean + eps);
  if (threadIdx.x == 0) {
    inv_rms[row] = r;
  }
  for (std::int64_t v = threadIdx.x; v < vectors; v += kWarp) {
    const Vector<T, kCount> in = x[row * vectors + v];
    const Vector<float, kCount> w = weight[v];
    Vector<T, kCount> out;
    for (int i = 0; i < kCount; ++i) {
      out.values[i] = from_float<T>(w.values[i] * (to_float(in.values[i]) * r));
    }
    y[row * vectors + v] = out;
  }
}

// dx += r * (dy w - x * r^2 * mean(dy w x)).
template <class T, int kCount>
__global__ void dx_kernel(const Vector<T, kCount>* x, const Vector<float, kCount>* weight,
                          const float* inv_rms, const Vector<T, kCount>* dy, Vector<T, kCount>* dx,
                          std::int64_t rows, std::int64_t vectors) {
  const std::int64_t row = row_of_warp();
  if (row >= rows) {
    return;
  }
  const float r = inv_rms[row];
  float sum = 0;
  for (std::int64_t v = threadIdx.x; v < vectors; v += kWarp) {
    const Vector<T, kCount> in = x[row * vectors + v];
    const Vector<T, kCount> gradient = dy[row * vectors + v];
    const Vector<float, kCount> w = weight[v];
    for (int i = 0; i < kCount; ++i) {
      sum += to_float(gradient.values[i]) * w.values[i] * to_float(in.values[i]);
    }
  }
  const float mean = warp_sum(sum) * r * r / static_cast<float>(vectors * kCount);
  for (std::int64_t v = threadIdx.x; v < vectors; v += kWarp) {
    const Vector<T, kCount> in = x[row * vectors + v];
    const Vector<T, kCount> gradient = dy[row * vectors + v];
    const Vector<float, kCount> w = weight[v];
    Vector<T, kCount> out = dx[row * vectors + v];
    for (int i = 0; i < kCount; ++i) {
      const float change =
          r * (to_float(gradient.values[i]) * w.values[i] - to_float(in.values[i]) * mean);
      out.values[i] = from_float<T>(to_float(out.values[i]) + change);
    }
    dx[row * vectors + v] = out;
  }
}

template <class T>
__global__ void dweight_kernel(const T* x, const float* inv_rms, const T* dy, std::int64_t rows,
                               std::int64_t hidden, float* partial) {
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.y) * kColumnThreads + threadIdx.x;
  const std::int64_t begin = blockIdx.x * kChunkRows;
  const std::int64_t end = begin + kChunkRows < rows ? begin + kChunkRows : rows;
  if (column >= hidden) {
    return;
  }
  float sum = 0;
  for (std::int64_t row = begin; row < end; ++row) {
    sum +=
        to_float(dy[row * hidden + column]) * (to_float(x[row * hidden + column]) * inv_rms[row]);
  }
  partial[blockIdx.x * hidden + column] = sum;
}

__global__ void add_chunks_kernel(const float* partial, std::int64_t chunks, std::int64_t hidden,
                                  float* dweight) {
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kColumnThreads + threadIdx.x;
  if (column >= hidden) {
    return;
  }
  float sum = dweight[column];
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
    sum += partial[chunk * hidden + column];
  }
  dweight[column] = sum;
}

}  // namespace

void rms_norm_forward(const Context& context, const Tensor& x, const Tensor& weight, float eps,
                      const Tensor& y, const Tensor& inv_rms) {
  const std::int64_t hidden = x.cols();
  dispatch_rows(x.dtype(), rows_are_aligned(hidden, {x, y, weight}), [&]<class T, int kCount>() {
    const RowLaunch launch = warp_per_row(x.rows());
    forward_kernel<<<launch.grid, launch.block, 0, stream_of(context)>>>(
        device_data<const Vector<T, kCount>>(x), device_data<const Vector<float, kCount>>(weight),
        eps, device_data<Vector<T, kCount>>(y), device_data<float>(inv_rms), x.rows(),
        hidden / kCount);
  });
  check_launch("rms_norm_forward");
}

void rms_norm_backward(const Context& context, const Tensor& x, const Tensor& weight,
                       const Tensor& inv_rms, const Tensor& dy, const Tensor& dx,
                       const Tensor& dweight) {
  const std::int64_t rows = x.rows();
  const std::int64_t hidden = x.cols();
  const auto* r = device_data<const float>(inv_rms);
  // Released on return while the kernels may still run: what takes it next is behind them in the
  // stream.
  const ArenaScope scope(context.scratch);
  const std::int64_t chunks = (rows + kChunkRows - 1) / kChunkRows;
  auto* partial = device_data<float>(context.scratch.tensor(DType::f32, {chunks, hidden}));
  const auto column_blocks = static_cast<unsigned>((hidden + kColumnThreads - 1) / kColumnThreads);
  dispatch_rows(x.dtype(), rows_are_aligned(hidden, {x, dy, dx, weight}),
                [&]<class T, int kCount>() {
                  const RowLaunch launch = warp_per_row(rows);
                  dx_kernel<<<launch.grid, launch.block, 0, stream_of(context)>>>(
                      device_data<const Vector<T, kCount>>(x),
                      device_data<const Vector<float, kCount>>(weight), r,
                      device_data<const Vector<T, kCount>>(dy), device_data<Vector<T, kCount>>(dx),
                      rows, hidden / kCount);
                  // x, because there may be more chunks than y's 65535.
                  const dim3 grid(static_cast<unsigned>(chunks), column_blocks);
                  dweight_kernel<<<grid, kColumnThreads, 0, stream_of(context)>>>(
                      device_data<const T>(x), r, device_data<const T>(dy), rows, hidden, partial);
                });
  add_chunks_kernel<<<column_blocks, kColumnThreads, 0, stream_of(context)>>>(
      partial, chunks, hidden, device_data<float>(dweight));
  check_launch("rms_norm_backward");
}

}  // namespace cartesian::cuda
