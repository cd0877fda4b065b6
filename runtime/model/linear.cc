#include "runtime/model/linear.h"

#include <cmath>

#include "runtime/model/model_config.h"

namespace cartesian {

Linear::Linear(ParameterStore& store, const std::vector<std::string>& names, std::int64_t out,
               std::int64_t in, double init_std)
    : store_(store) {
  std::vector<NamedTensor> parts;
  const std::int64_t part = out / static_cast<std::int64_t>(names.size());
  for (const std::string& name : names) {
    parts.push_back({.name = name, .shape = {part, in}, .init_std = init_std, .decay = true});
  }
  weight_ = store.add(std::move(parts), {out, in});
}

void Linear::pack(const Context& context, DType dtype) {
  packed_.pack(context, store_.weight(weight_), dtype);
}

void Linear::forward(RankContext& rank, const Tensor& x, const Tensor& y) const {
  linear_forward(rank.op, x, packed_, y);
}

void Linear::backward(RankContext& rank, const Tensor& x, const Tensor& dy,
                      const Tensor& dx) const {
  linear_backward_input(rank.op, dy, packed_, dx);
  linear_backward_weight(rank.op, dy, x, store_.gradient(weight_));
}

FfnParameters::FfnParameters(ParameterStore& store, const std::string& prefix, std::int64_t hidden,
                             std::int64_t width, double init_std, double down_init_std) {
  const auto matrix = [&](const char* name, Shape shape, double std) {
    return NamedTensor{.name = prefix + name, .shape = shape, .init_std = std, .decay = true};
  };
  gate_up_ = store.add({matrix("gate_proj.weight", {width, hidden}, init_std),
                        matrix("up_proj.weight", {width, hidden}, init_std)},
                       {2 * width, hidden});
  down_ = store.add({matrix("down_proj.weight", {hidden, width}, down_init_std)}, {hidden, width});
}

void FfnParameters::pack(const Context& context, ParameterStore& store, DType dtype,
                         FfnWeights& packed) const {
  packed.gate_up.pack(context, store.weight(gate_up_), dtype);
  packed.down.pack(context, store.weight(down_), dtype);
}

FfnGradients FfnParameters::gradients(ParameterStore& store) const {
  return {store.gradient(gate_up_), store.gradient(down_)};
}

double residual_init_std(const ModelConfig& config) {
  const auto projections = static_cast<double>(config.num_hidden_layers *
                                               (1 + std::max<std::int64_t>(1, config.sub_layers)));
  return config.initializer_range / std::sqrt(projections);
}

}  // namespace cartesian
