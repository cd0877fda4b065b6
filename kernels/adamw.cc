#include "kernels/adamw.h"

#include <cmath>

#include "kernels/dispatch.h"
#include "kernels/parallel.h"

namespace cartesian {

void adamw_update(const Context& context, const AdamWOptions& options, const Tensor& gradient,
                  const Tensor& weight, const Tensor& first_moment, const Tensor& second_moment) {
  check_cpu(context, "adamw_update");
  const std::int64_t count = weight.numel();
  check(
      gradient.numel() == count && first_moment.numel() == count && second_moment.numel() == count,
      "adamw_update needs a gradient and two moments per weight");
  check(options.step >= 1, "adamw_update counts steps from one");
  const auto* g = gradient.data<float>();
  auto* w = weight.data<float>();
  auto* m = first_moment.data<float>();
  auto* v = second_moment.data<float>();
  const double step = static_cast<double>(options.step);
  const double correction1 = 1 - std::pow(static_cast<double>(options.beta1), step);
  const double correction2 = 1 - std::pow(static_cast<double>(options.beta2), step);
  const auto rate = static_cast<float>(options.learning_rate / correction1);
  const auto scale_v = static_cast<float>(1 / std::sqrt(correction2));
  const float decay = 1 - options.learning_rate * options.weight_decay;
  const AdamWOptions o = options;
  constexpr std::int64_t kBlock = 4096;
  parallel_blocks(context, count, kBlock, [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
    for (std::int64_t i = begin; i < end; ++i) {
      const float grad = g[i] * o.gradient_scale;
      m[i] = o.beta1 * m[i] + (1 - o.beta1) * grad;
      v[i] = o.beta2 * v[i] + (1 - o.beta2) * grad * grad;
      w[i] = decay * w[i] - rate * m[i] / (std::sqrt(v[i]) * scale_v + o.eps);
    }
  });
}

}  // namespace cartesian
