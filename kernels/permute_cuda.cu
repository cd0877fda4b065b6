#include "kernels/backends.h"
#include "kernels/cuda_rows.cuh"

namespace cartesian::cuda {

namespace {

// An index out of range is a bug, as on the CPU: the kernel traps and the stream reports it.
__device__ void check_row(std::int64_t row, std::int64_t rows) {
  if (row >= rows) {
    __trap();
  }
}

template <class T, int kCount>
__global__ void permute_kernel(const Vector<T, kCount>* x, std::int64_t rows_of_x,
                               const std::int32_t* source, Vector<T, kCount>* y, std::int64_t rows,
                               std::int64_t vectors) {
  const std::int64_t row = row_of_warp();
  if (row >= rows) {
    return;
  }
  const std::int64_t from = source[row];
  check_row(from, rows_of_x);
  for (std::int64_t v = threadIdx.x; v < vectors; v += kWarp) {
    y[row * vectors + v] = from < 0 ? Vector<T, kCount>{} : x[from * vectors + v];
  }
}

template <class T, int kCount>
__global__ void unpermute_kernel(const Vector<T, kCount>* y, std::int64_t rows_of_y,
                                 const std::int32_t* positions, const float* weights, int k,
                                 Vector<T, kCount>* out, std::int64_t rows, std::int64_t vectors) {
  const std::int64_t row = row_of_warp();
  if (row >= rows) {
    return;
  }
  for (std::int64_t v = threadIdx.x; v < vectors; v += kWarp) {
    float sums[kCount] = {};
    for (std::int64_t j = row * k; j < (row + 1) * k; ++j) {
      const std::int64_t from = positions[j];
      check_row(from, rows_of_y);
      if (from < 0) {
        continue;
      }
      const float weight = weights == nullptr ? 1.0F : weights[j];
      const Vector<T, kCount> values = y[from * vectors + v];
      for (int i = 0; i < kCount; ++i) {
        sums[i] += weight * to_float(values.values[i]);
      }
    }
    Vector<T, kCount> result;
    for (int i = 0; i < kCount; ++i) {
      result.values[i] = from_float<T>(sums[i]);
    }
    out[row * vectors + v] = result;
  }
}

}  // namespace

void permute_rows(const Context& context, const Tensor& x, const Tensor& source, const Tensor& y) {
  const std::int64_t hidden = y.cols();
  dispatch_rows(y.dtype(), rows_are_aligned(hidden, {x, y}), [&]<class T, int kCount>() {
    const RowLaunch launch = warp_per_row(y.rows());
    permute_kernel<<<launch.grid, launch.block, 0, stream_of(context)>>>(
        device_data<const Vector<T, kCount>>(x), x.rows(), device_data<const std::int32_t>(source),
        device_data<Vector<T, kCount>>(y), y.rows(), hidden / kCount);
  });
  check_launch("permute_rows");
}

void unpermute_rows(const Context& context, const Tensor& y, const Tensor& positions,
                    const Tensor& weights, const Tensor& out) {
  const std::int64_t hidden = out.cols();
  const float* weight = weights.defined() ? device_data<const float>(weights) : nullptr;
  dispatch_rows(out.dtype(), rows_are_aligned(hidden, {y, out}), [&]<class T, int kCount>() {
    const RowLaunch launch = warp_per_row(out.rows());
    unpermute_kernel<<<launch.grid, launch.block, 0, stream_of(context)>>>(
        device_data<const Vector<T, kCount>>(y), y.rows(),
        device_data<const std::int32_t>(positions), weight, static_cast<int>(positions.cols()),
        device_data<Vector<T, kCount>>(out), out.rows(), hidden / kCount);
  });
  check_launch("unpermute_rows");
}

}  // namespace cartesian::cuda
