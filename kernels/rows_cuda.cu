#include "kernels/backends.h"
#include "kernels/cuda_rows.cuh"

namespace cartesian::cuda {

namespace {

// A host list in device memory for what is launched next. Pageable memory has been read when
// cudaMemcpyAsync returns, so the list may go then.
template <class T>
const T* send(const Context& context, std::span<const T> list) {
  void* copy = context.scratch.allocate(list.size_bytes());
  if (!list.empty()) {
    check_cuda(cudaMemcpyAsync(copy, list.data(), list.size_bytes(), cudaMemcpyHostToDevice,
                               stream_of(context)),
               "cudaMemcpyAsync");
  }
  return static_cast<const T*>(copy);
}

// Lists name rows of any origin: each warp looks how wide it can access its own.
__device__ std::uintptr_t bits_of(const void* row) { return reinterpret_cast<std::uintptr_t>(row); }

// Zeros where `from` is null.
template <class Unit>
__device__ void copy_row(const void* from, void* to, std::size_t row_bytes) {
  for (std::size_t u = threadIdx.x; u < row_bytes / sizeof(Unit); u += kWarp) {
    static_cast<Unit*>(to)[u] = from == nullptr ? Unit{} : static_cast<const Unit*>(from)[u];
  }
}

__global__ void copy_kernel(const std::byte* const* from, std::byte* const* to, std::int64_t rows,
                            std::size_t row_bytes) {
  const std::int64_t row = row_of_warp();
  if (row >= rows || to[row] == nullptr || to[row] == from[row]) {
    return;
  }
  const std::uintptr_t bits = bits_of(from[row]) | bits_of(to[row]) | row_bytes;
  if (bits % sizeof(uint4) == 0) {
    copy_row<uint4>(from[row], to[row], row_bytes);
  } else if (bits % sizeof(std::uint32_t) == 0) {
    copy_row<std::uint32_t>(from[row], to[row], row_bytes);
  } else if (bits % sizeof(std::uint16_t) == 0) {
    copy_row<std::uint16_t>(from[row], to[row], row_bytes);
  } else {
    copy_row<std::uint8_t>(from[row], to[row], row_bytes);
  }
}

// The sums start from the first term, as on the CPU: zero plus it would lose the sign of -0. A lane
// has read its columns of all terms before it writes them, so `to` may be one of them.
template <class T, int kCount>
__device__ void sum_row(const std::byte* const* terms, std::int64_t count, std::byte* to,
                        std::int64_t cols) {
  using Columns = Vector<T, kCount>;
  for (std::int64_t v = threadIdx.x; v < cols / kCount; v += kWarp) {
    Columns result = reinterpret_cast<const Columns*>(terms[0])[v];
    float sums[kCount];
    for (int i = 0; i < kCount; ++i) {
      sums[i] = to_float(result.values[i]);
    }
    for (std::int64_t term = 1; term < count; ++term) {
      const Columns values = reinterpret_cast<const Columns*>(terms[term])[v];
      for (int i = 0; i < kCount; ++i) {
        sums[i] += to_float(values.values[i]);
      }
    }
    for (int i = 0; i < kCount; ++i) {
      result.values[i] = from_float<T>(sums[i]);
    }
    reinterpret_cast<Columns*>(to)[v] = result;
  }
}

template <class T>
__global__ void sum_kernel(const std::int64_t* begins, const std::byte* const* all_terms,
                           std::byte* const* to, std::int64_t rows, std::int64_t cols) {
  const std::int64_t row = row_of_warp();
  if (row >= rows || to[row] == nullptr) {
    return;
  }
  const std::byte* const* terms = all_terms + begins[row];
  const std::int64_t count = begins[row + 1] - begins[row];
  if (count == 0 || (count == 1 && terms[0] != to[row])) {
    copy_row<T>(count == 0 ? nullptr : terms[0], to[row], cols * sizeof(T));
  } else if (count > 1) {
    std::uintptr_t bits = bits_of(to[row]) | cols * sizeof(T);
    for (std::int64_t term = 0; term < count; ++term) {
      bits |= bits_of(terms[term]);
    }
    if (bits % kAccessBytes == 0) {
      sum_row<T, kAccessBytes / sizeof(T)>(terms, count, to[row], cols);
    } else {
      sum_row<T, 1>(terms, count, to[row], cols);
    }
  }
}

}  // namespace

void copy_rows(const Context& context, RowSources from, RowTargets to, std::size_t row_bytes) {
  const ArenaScope scope(context.scratch);  // what takes it next is behind the kernel in the stream
  const auto rows = static_cast<std::int64_t>(to.size());
  const RowLaunch launch = warp_per_row(rows);
  copy_kernel<<<launch.grid, launch.block, 0, stream_of(context)>>>(
      send(context, from), send(context, to), rows, row_bytes);
  check_launch("copy_rows");
}

void sum_rows(const Context& context, DType dtype, std::int64_t cols,
              std::span<const std::int64_t> begins, RowSources terms, RowTargets to) {
  const ArenaScope scope(context.scratch);  // as above
  const auto rows = static_cast<std::int64_t>(to.size());
  const RowLaunch launch = warp_per_row(rows);
  const auto sum = [&]<class T>(T) {
    sum_kernel<T><<<launch.grid, launch.block, 0, stream_of(context)>>>(
        send(context, begins), send(context, terms), send(context, to), rows, cols);
  };
  dtype == DType::f32 ? sum(float{}) : sum(__nv_bfloat16{});
  check_launch("sum_rows");
}

}  // namespace cartesian::cuda
