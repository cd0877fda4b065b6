#pragma once
// How many parameters a model has, from its sizes alone. Doubles, so that no size overflows.

#include "runtime/model/model_config.h"

namespace cartesian {

struct ParameterCount {
  double backbone = 0;    ///< matrices outside routed experts: embedding, head, attention, dense
                          ///< FFNs, shared experts
  double experts = 0;     ///< matrices of all routed experts
  double per_choice = 0;  ///< matrices that one more choice in every sub-layer activates
  double small = 0;       ///< norms, routers, mixes and a hash table: what papers leave out

  /// The paper's count: matrices only.
  double matrices() const { return backbone + experts; }
  double all() const { return matrices() + small; }
  /// Activated by a token that makes `choices` in every sub-layer.
  double activated_matrices(double choices) const { return backbone + choices * per_choice; }
  double activated(double choices) const { return activated_matrices(choices) + small; }
};

ParameterCount count_parameters(const ModelConfig& config);

}  // namespace cartesian
