#include "runtime/model/tensor_names.h"

#include "runtime/model/language_model.h"

namespace cartesian {

std::set<std::string, std::less<>> tensor_names(const ModelConfig& config) {
  // As one rank that holds every expert lays them out.
  const bool dense = config.sub_layers == 0;
  const Placement placement =
      Placement::linear({.layers = static_cast<int>(config.moe_layers()),
                         .groups = static_cast<int>(config.sub_layers),
                         .experts = static_cast<int>(dense ? 0 : config.num_experts),
                         .ranks = 1},
                        1);
  ParameterStore store = ParameterStore::layout_only();
  const LanguageModel model(config, placement, 0, store);
  std::set<std::string, std::less<>> names;
  for (const NamedTensor& tensor : store.tensors()) {
    names.insert(tensor.name);
  }
  return names;
}

}  // namespace cartesian
