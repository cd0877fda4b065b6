#pragma once
// AdamW with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101).

#include <cstdint>

#include "base/context.h"

namespace cartesian {

struct AdamWOptions {
  float learning_rate = 0;
  float beta1 = 0.9F;
  float beta2 = 0.95F;
  float eps = 1e-8F;
  float weight_decay = 0;
  std::int64_t step = 1;     ///< 1 at the first update: the bias correction's exponent
  float gradient_scale = 1;  ///< multiplies the gradient first (clipping)
};

/// One update of `weight` and its moments in place. All [n] float32. Same bits whatever
/// context.threads is.
void adamw_update(const Context& context, const AdamWOptions& options, const Tensor& gradient,
                  const Tensor& weight, const Tensor& first_moment, const Tensor& second_moment);

}  // namespace cartesian
