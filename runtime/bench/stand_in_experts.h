#pragma once
// Experts that cost next to nothing: they multiply rows by numbers of their own. Every row counts,
// so that one which came to another expert's slot would show.

#include <cstdint>
#include <span>
#include <vector>

#include "base/context.h"
#include "base/placement.h"
#include "base/tensor.h"

namespace cartesian {

/// Those of one group that a rank has. Thread-safe, CPU only.
class StandInExperts {
 public:
  StandInExperts(const Placement& placement, int layer, int group, int rank);

  std::size_t slots() const { return slopes_.size(); }
  /// y = gate * slope * x: rows [n, hidden], gates [n] float32; the slot s has the rows
  /// [slot_offsets[s], slot_offsets[s + 1]).
  void forward(const Context& context, std::span<const std::int64_t> slot_offsets, const Tensor& x,
               const Tensor& gates, const Tensor& y) const;
  /// dx = gate * slope * dy; dgates [n] = slope * (x . dy).
  void backward(const Context& context, std::span<const std::int64_t> slot_offsets, const Tensor& x,
                const Tensor& gates, const Tensor& dy, const Tensor& dx,
                const Tensor& dgates) const;

 private:
  std::vector<float> slopes_;  // [slots]
};

}  // namespace cartesian
