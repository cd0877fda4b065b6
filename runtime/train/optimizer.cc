#include "runtime/train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "kernels/adamw.h"

namespace cartesian {

double learning_rate(const TrainConfig& config, std::int64_t step) {
  if (step < config.warmup_steps) {
    return config.learning_rate * static_cast<double>(step + 1) /
           static_cast<double>(config.warmup_steps);
  }
  const auto span =
      static_cast<double>(std::max<std::int64_t>(1, config.steps - config.warmup_steps));
  const double progress = std::min(1.0, static_cast<double>(step - config.warmup_steps) / span);
  const double cosine = 0.5 * (1 + std::cos(std::numbers::pi * progress));
  return config.min_learning_rate + (config.learning_rate - config.min_learning_rate) * cosine;
}

std::vector<Optimizer::Range> Optimizer::ranges() const {
  std::vector<Range> ranges;
  const ElementRange held = parameters_.dense_moments();
  bool dense = true;
  for (const NamedTensor& tensor : parameters_.tensors()) {
    ElementRange elements{tensor.offset, tensor.offset + tensor.shape.numel()};
    const bool was_dense = std::exchange(dense, tensor.offset < parameters_.dense_size());
    if (dense) {
      elements = intersect(elements, held);
    }
    if (elements.size() == 0) {
      continue;
    }
    if (!ranges.empty() && ranges.back().decay == tensor.decay && was_dense == dense) {
      // The padding between has no gradient and no weight: AdamW leaves it at zero.
      ranges.back().elements.end = elements.end;
    } else {
      ranges.push_back({elements, tensor.decay});
    }
  }
  return ranges;
}

void Optimizer::update(const Context& context, std::int64_t step, double gradient_scale) {
  AdamWOptions options{.learning_rate = static_cast<float>(learning_rate(config_, step)),
                       .beta1 = static_cast<float>(config_.beta1),
                       .beta2 = static_cast<float>(config_.beta2),
                       .eps = static_cast<float>(config_.eps),
                       .step = step + 1,
                       .gradient_scale = static_cast<float>(gradient_scale)};
  for (const Range& range : ranges()) {
    const Shape shape{range.elements.size()};
    const auto view = [&](std::span<float> array) {
      return Tensor(array.data() + range.elements.begin, shape);
    };
    options.weight_decay = range.decay ? static_cast<float>(config_.weight_decay) : 0.0F;
    adamw_update(context, options, view(parameters_.gradients()), view(parameters_.weights()),
                 Tensor(parameters_.first_moments(range.elements).data(), shape),
                 Tensor(parameters_.second_moments(range.elements).data(), shape));
  }
}

}  // namespace cartesian
