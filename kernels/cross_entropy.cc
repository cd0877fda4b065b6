#include "kernels/cross_entropy.h"

#include <cmath>

#include "kernels/dispatch.h"
#include "kernels/parallel.h"
#include "kernels/softmax_row.h"

namespace cartesian {

namespace {

// One token's softmax, never stored: exp is taken again where it is needed, which costs less than
// the memory traffic and lets the gradient replace the logits.
struct Row {
  const float* logits;
  std::int64_t count;
  float shift;  // the largest logit
  double sum;   // of exp(logit - shift)

  Row(const float* row, std::int64_t size)
      : logits(row), count(size), shift(max_of_row(row, size)), sum(sum_of_exp()) {}

  // float32 within blocks, float64 between them, so that large vocabularies lose no digits.
  double sum_of_exp() const {
    constexpr std::int64_t kBlock = 2048;
    double total = 0;
    for (std::int64_t begin = 0; begin < count; begin += kBlock) {
      const std::int64_t end = std::min(count, begin + kBlock);
      float part = 0;
#pragma omp simd reduction(+ : part)
      for (std::int64_t v = begin; v < end; ++v) {
        part += fast_exp(logits[v] - shift);
      }
      total += part;
    }
    return total;
  }

  float loss(std::int64_t target) const {
    return static_cast<float>(std::log(sum) + (static_cast<double>(shift) - logits[target]));
  }

  // d = scale * (softmax - onehot(target)). `d` may be the logits.
  template <class T>
  void gradient(std::int64_t target, float scale, T* d) const {
    const auto factor = static_cast<float>(scale / sum);
    const double probability = std::exp(static_cast<double>(logits[target]) - shift) / sum;
#pragma omp simd
    for (std::int64_t v = 0; v < count; ++v) {
      d[v] = from_float<T>(factor * fast_exp(logits[v] - shift));
    }
    d[target] = from_float<T>(static_cast<float>(scale * (probability - 1)));
  }
};

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
            const Row row(x + t * count, count);
            loss[t] = row.loss(target[t]);
            if (d != nullptr) {
              row.gradient(target[t], scale, d + t * count);
            }
          }
        });
  });
}

}  // namespace cartesian
