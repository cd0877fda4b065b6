#include "kernels/elementwise.h"

#include "kernels/dispatch.h"
#include "kernels/parallel.h"

namespace cartesian {

namespace {

constexpr std::int64_t kBlock = 8192;

}  // namespace

void convert(const Context& context, const Tensor& in, const Tensor& out) {
  check_cpu(context, "convert");
  check(in.numel() == out.numel(), "convert keeps the number of elements");
  dispatch_float(in.dtype(), [&]<class From>(From) {
    dispatch_float(out.dtype(), [&]<class To>(To) {
      const From* from = in.data<From>();
      To* to = out.data<To>();
      parallel_blocks(context, in.numel(), kBlock, [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
        for (std::int64_t i = begin; i < end; ++i) {
          to[i] = from_float<To>(to_float(from[i]));
        }
      });
    });
  });
}

void add_in_place(const Context& context, const Tensor& addend, const Tensor& accumulator) {
  add(context, accumulator, addend, accumulator);
}

void add(const Context& context, const Tensor& a, const Tensor& b, const Tensor& out) {
  check_cpu(context, "add");
  check(a.shape() == b.shape() && a.shape() == out.shape(), "add needs equal shapes");
  check(a.dtype() == b.dtype() && a.dtype() == out.dtype(), "add needs equal dtypes");
  dispatch_float(a.dtype(), [&]<class T>(T) {
    const T* left = a.data<T>();
    const T* right = b.data<T>();
    T* sum = out.data<T>();
    parallel_blocks(context, a.numel(), kBlock, [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i) {
        sum[i] = from_float<T>(to_float(left[i]) + to_float(right[i]));
      }
    });
  });
}

double sum_of_squares(const Context& context, const Tensor& values) {
  check_cpu(context, "sum_of_squares");
  const std::int64_t count = values.numel();
  const float* x = values.data<float>();
  const ArenaScope scope(context.scratch);
  const std::int64_t blocks = (count + kBlock - 1) / kBlock;
  auto* sums = static_cast<double*>(
      context.scratch.allocate(static_cast<std::size_t>(blocks) * sizeof(double)));
  parallel_blocks(context, count, kBlock, [=](std::int64_t begin, std::int64_t end) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t i = begin; i < end; ++i) {
      const double value = x[i];
      sum += value * value;
    }
    sums[begin / kBlock] = sum;
  });
  double total = 0;
  for (std::int64_t b = 0; b < blocks; ++b) {
    total += sums[b];
  }
  return total;
}

}  // namespace cartesian
