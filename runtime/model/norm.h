#pragma once
// Norm: an RMSNorm with its learned weight, as blocks use it.

#include <string>

#include "runtime/model/parameters.h"
#include "runtime/model/rank_context.h"

namespace cartesian {

class Norm {
 public:
  /// What backward needs. x must stay valid until then.
  struct Saved {
    Tensor x;        ///< [tokens, hidden]
    Tensor inv_rms;  ///< [tokens]
  };

  /// Adds the weight to `store`, which must outlive the norm.
  Norm(ParameterStore& store, const std::string& name, std::int64_t hidden, double eps);

  /// Returns norm(x), in the arena of saved activations.
  Tensor forward(RankContext& rank, const Tensor& x, Saved& saved) const;
  /// dx += the gradient of x.
  void backward(RankContext& rank, const Saved& saved, const Tensor& dh, const Tensor& dx) const;

 private:
  ParameterStore& store_;
  ParameterRef weight_;
  float eps_;
};

}  // namespace cartesian
