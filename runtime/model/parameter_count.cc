#include "runtime/model/parameter_count.h"

namespace cartesian {

ParameterCount count_parameters(const ModelConfig& config) {
  const auto hidden = static_cast<double>(config.hidden_size);
  const auto vocabulary = static_cast<double>(config.vocab_size);
  const auto blocks = static_cast<double>(config.num_hidden_layers);
  const auto moe_blocks = static_cast<double>(config.moe_layers());
  const auto sub_layers = static_cast<double>(config.sub_layers);
  const auto experts = static_cast<double>(config.num_experts);
  const bool hashed = config.routing_kind() == RoutingKind::hash;
  const double dense_ffn = 3 * hidden * static_cast<double>(config.intermediate_size);
  const double expert =
      config.sub_layers == 0 ? 0 : 3 * hidden * static_cast<double>(config.expert_width());
  const double in_all = moe_blocks * sub_layers;  // routed sub-layers

  ParameterCount count;
  count.backbone = 2 * vocabulary * hidden + blocks * 4 * hidden * hidden +
                   (blocks - moe_blocks) * dense_ffn +
                   in_all * static_cast<double>(config.shared_ffns()) * expert;
  count.experts = in_all * experts * expert;
  count.per_choice = in_all * expert;
  const double norms =
      (2 * blocks + 1) * hidden + (config.sub_layers == 2 ? moe_blocks * hidden : 0);
  const double routers = hashed ? vocabulary * experts : in_all * experts * hidden;
  const double mixes = config.use_residual ? in_all * (2 * hidden + 2) : 0;
  const double biases = config.router_bias ? in_all * experts : 0;
  count.small = norms + (config.sub_layers == 0 ? 0 : routers + mixes + biases);
  return count;
}

}  // namespace cartesian
