#pragma once
// The names of a model's tensors in a checkpoint, those of all ranks together.

#include <functional>
#include <set>
#include <string>

#include "runtime/model/model_config.h"

namespace cartesian {

std::set<std::string, std::less<>> tensor_names(const ModelConfig& config);

}  // namespace cartesian
