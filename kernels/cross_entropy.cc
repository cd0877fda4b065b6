#include "kernels/cross_entropy.h"

#include <cmath>

#include "kernels/dispatch.h"
#include "kernels/parallel.h"
#include "kernels/softmax_row.h"

namespace cartesian {

namespace {

// exp(row - shift) summed: float32 within blocks, float64 between them, so that large vocabularies
// lose no digits.
double sum_of_exp(const float* row, float shift, std::int64_t count) {
  constexpr std::int64_t kBlock = 2048;
  double total = 0;
  for (std::int64_t begin = 0; begin < count; begin += kBlock) {
    const std::int64_t end = std::min(count, begin + kBlock);
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t v = begin; v < end; ++v) {
      sum += fast_exp(row[v] - shift);
    }
    total += sum;
  }
  return total;
}

// d = scale * (exp(row - shift) / sum - onehot(target)). `d` may be `row`: exp is taken again
// rather than stored, which costs less than the memory traffic.
template <class T>
void gradient(const float* row, float shift, double sum, float scale, std::int64_t count,
              std::int64_t target, T* d) {
  const auto factor = static_cast<float>(scale / sum);
  const float at_target =
      scale * static_cast<float>(std::exp(static_cast<double>(row[target]) - shift) / sum - 1);
#pragma omp simd
  for (std::int64_t v = 0; v < count; ++v) {
    d[v] = from_float<T>(factor * fast_exp(row[v] - shift));
  }
  d[target] = from_float<T>(at_target);
}

}  // namespace

void cross_entropy(const Context& context, const Tensor& logits, const Tensor& targets, float scale,
                   const Tensor& losses, const Tensor& dlogits) {
  check_cpu(context, "cross_entropy");
  check(logits.shape().rank() == 2 && targets.numel() == logits.rows() &&
            losses.numel() == logits.rows(),
        "cross_entropy needs logits [tokens, vocabulary] and one target and loss per token");
  check(!dlogits.defined() || dlogits.shape() == logits.shape(),
        "cross_entropy needs dlogits like logits");
  const auto* x = logits.data<float>();
  const auto* target = targets.data<std::int32_t>();
  auto* loss = losses.data<float>();
  const std::int64_t count = logits.cols();
  dispatch_float(dlogits.defined() ? dlogits.dtype() : DType::f32, [&]<class T>(T) {
    T* d = dlogits.defined() ? dlogits.data<T>() : nullptr;
    parallel_blocks(
        context, logits.rows(), rows_per_block(count), [=](std::int64_t begin, std::int64_t end) {
          for (std::int64_t t = begin; t < end; ++t) {
            check(target[t] >= 0 && target[t] < count, "cross_entropy: target out of range");
            const float* row = x + t * count;
            const float shift = max_of_row(row, count);
            const double sum = sum_of_exp(row, shift, count);
            loss[t] =
                static_cast<float>(std::log(sum) + (static_cast<double>(shift) - row[target[t]]));
            if (d != nullptr) {
              gradient(row, shift, sum, scale, count, target[t], d + t * count);
            }
          }
        });
  });
}

}  // namespace cartesian
