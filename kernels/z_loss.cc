#include "kernels/z_loss.h"

#include <cmath>

#include "kernels/dispatch.h"
#include "kernels/parallel.h"
#include "kernels/softmax_row.h"

namespace cartesian {

namespace {
constexpr std::int64_t kBlockElements = 4096;
}

void log_sum_exp(const Context& context, const Tensor& logits, const Tensor& result) {
  check_cpu(context, "log_sum_exp");
  check(logits.dtype() == DType::f32 && result.dtype() == DType::f32 &&
            result.numel() == logits.rows(),
        "log_sum_exp needs float32 logits [tokens, experts] and results [tokens]");
  const std::int64_t count = logits.cols();
  const auto* from = logits.data<float>();
  auto* to = result.data<float>();
  parallel_blocks(context, logits.rows(), rows_per_block(count, kBlockElements),
                  [=](std::int64_t begin, std::int64_t end) {
                    for (std::int64_t t = begin; t < end; ++t) {
                      const float* row = from + t * count;
                      const float largest = max_of_row(row, count);
                      float sum = 0;
#pragma omp simd reduction(+ : sum)
                      for (std::int64_t e = 0; e < count; ++e) {
                        sum += fast_exp(row[e] - largest);
                      }
                      to[t] = largest + std::log(sum);
                    }
                  });
}

void z_loss_backward(const Context& context, const Tensor& probabilities, const Tensor& log_sum_exp,
                     float scale, const Tensor& dlogits) {
  check_cpu(context, "z_loss_backward");
  check(probabilities.dtype() == DType::f32 && dlogits.shape() == probabilities.shape() &&
            log_sum_exp.numel() == probabilities.rows(),
        "z_loss_backward needs probabilities and dlogits [tokens, experts]");
  const std::int64_t count = probabilities.cols();
  const auto* p = probabilities.data<float>();
  const auto* z = log_sum_exp.data<float>();
  auto* d = dlogits.data<float>();
  parallel_blocks(context, probabilities.rows(), rows_per_block(count, kBlockElements),
                  [=](std::int64_t begin, std::int64_t end) {
                    for (std::int64_t t = begin; t < end; ++t) {
                      const float factor = scale * 2 * z[t];
#pragma omp simd
                      for (std::int64_t e = t * count; e < (t + 1) * count; ++e) {
                        d[e] += factor * p[e];
                      }
                    }
                  });
}

}  // namespace cartesian
