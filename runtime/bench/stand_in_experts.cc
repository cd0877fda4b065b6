#include "runtime/bench/stand_in_experts.h"

#include "base/index.h"
#include "kernels/dispatch.h"
#include "kernels/parallel.h"
#include "runtime/bench/exchange_case.h"

namespace cartesian {

namespace {

/// Calls visit(row, slope) for every row.
template <class Visit>
void for_each_row(const Context& context, std::span<const std::int64_t> slot_offsets,
                  std::span<const float> slopes, std::int64_t hidden, const Visit& visit) {
  for (std::size_t slot = 0; slot < slopes.size(); ++slot) {
    const std::int64_t first = slot_offsets[slot];
    parallel_blocks(context, slot_offsets[slot + 1] - first, rows_per_block(hidden),
                    [&](std::int64_t begin, std::int64_t end) {
                      for (std::int64_t row = first + begin; row < first + end; ++row) {
                        visit(row, slopes[slot]);
                      }
                    });
  }
}

template <class T>
void scale(const T* from, float by, std::int64_t cols, T* to) {
#pragma omp simd
  for (std::int64_t c = 0; c < cols; ++c) {
    to[c] = from_float<T>(by * to_float(from[c]));
  }
}

template <class T>
float dot(const T* a, const T* b, std::int64_t cols) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t c = 0; c < cols; ++c) {
    sum += to_float(a[c]) * to_float(b[c]);
  }
  return sum;
}

}  // namespace

StandInExperts::StandInExperts(const Placement& placement, int layer, int group, int rank) {
  for (const int expert : placement.experts_on(layer, group, rank)) {
    slopes_.push_back(expert_slope(group, expert));
  }
}

void StandInExperts::forward(const Context& context, std::span<const std::int64_t> slot_offsets,
                             const Tensor& x, const Tensor& gates, const Tensor& y) const {
  const std::int64_t cols = x.cols();
  dispatch_float(x.dtype(), [&]<class T>(T) {
    for_each_row(context, slot_offsets, slopes_, cols, [&](std::int64_t row, float slope) {
      scale(x.data<T>() + row * cols, gates.data<float>()[row] * slope, cols,
            y.data<T>() + row * cols);
    });
  });
}

void StandInExperts::backward(const Context& context, std::span<const std::int64_t> slot_offsets,
                              const Tensor& x, const Tensor& gates, const Tensor& dy,
                              const Tensor& dx, const Tensor& dgates) const {
  const std::int64_t cols = x.cols();
  dispatch_float(x.dtype(), [&]<class T>(T) {
    for_each_row(context, slot_offsets, slopes_, cols, [&](std::int64_t row, float slope) {
      const T* d = dy.data<T>() + row * cols;
      dgates.data<float>()[row] = slope * dot(x.data<T>() + row * cols, d, cols);
      scale(d, gates.data<float>()[row] * slope, cols, dx.data<T>() + row * cols);
    });
  });
}

}  // namespace cartesian
