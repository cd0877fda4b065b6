#pragma once
// What kernels over rows share: one warp per row, which reads and writes kCount elements at once
// where alignment allows it, and sums in float32.

#include <cuda_bf16.h>

#include <cstdint>
#include <initializer_list>

#include "base/context.h"
#include "kernels/cuda_check.cuh"

namespace cartesian::cuda {

constexpr int kWarp = 32;
constexpr int kWarpsPerBlock = 8;

constexpr std::size_t kAccessBytes = 16;  ///< the widest load of every architecture

template <class T, int kCount>
struct alignas(sizeof(T) * kCount < kAccessBytes ? sizeof(T) * kCount : kAccessBytes) Vector {
  T values[kCount];
};

__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }
template <class T>
__device__ T from_float(float value);
template <>
__device__ inline float from_float<float>(float value) {
  return value;
}
template <>
__device__ inline __nv_bfloat16 from_float<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

/// The sum over the warp, the same in every lane.
__device__ inline float warp_sum(float value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(0xFFFFFFFFU, value, offset);
  }
  return value;
}

/// This warp's row; there may be fewer rows than warps.
__device__ inline std::int64_t row_of_warp() {
  return static_cast<std::int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.y;
}

struct RowLaunch {
  dim3 grid;
  dim3 block;
};
inline RowLaunch warp_per_row(std::int64_t rows) {
  return {dim3(static_cast<unsigned>((rows + kWarpsPerBlock - 1) / kWarpsPerBlock)),
          dim3(kWarp, kWarpsPerBlock)};
}

inline cudaStream_t stream_of(const Context& context) {
  return static_cast<cudaStream_t>(context.stream);
}

/// Whether rows of `cols` elements of all `tensors` can be accessed kAccessBytes at a time.
inline bool rows_are_aligned(std::int64_t cols, std::initializer_list<Tensor> tensors) {
  for (const Tensor& tensor : tensors) {
    const auto row_bytes = static_cast<std::uintptr_t>(cols) * size_of(tensor.dtype());
    if (row_bytes % kAccessBytes != 0 ||
        reinterpret_cast<std::uintptr_t>(tensor.raw()) % kAccessBytes != 0) {
      return false;
    }
  }
  return true;
}

template <class T>
T* device_data(const Tensor& tensor) {
  return static_cast<T*>(tensor.raw());
}

/// Calls f.template operator()<T, kCount>() for the element type and 16 bytes or one element.
template <class F>
void dispatch_rows(DType dtype, bool aligned, const F& f) {
  if (dtype == DType::f32) {
    aligned ? f.template operator()<float, 4>() : f.template operator()<float, 1>();
  } else {
    aligned ? f.template operator()<__nv_bfloat16, 8>() : f.template operator()<__nv_bfloat16, 1>();
  }
}

}  // namespace cartesian::cuda
