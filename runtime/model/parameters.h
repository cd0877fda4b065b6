#pragma once
// ParameterStore: the float32 master weights of one rank, their gradients and Adam moments, in four
// flat arrays of one layout: first the dense part, which every rank holds, then the experts that
// the placement puts on this rank. A sharded store (ZeRO stage 1: Rajbhandari et al., arXiv
// 1910.02054) has the moments of its rank's share of the dense part only. Tensors used as one
// matrix lie side by side (q, k, v; gate and up; router and mix), and keep their own names.

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/placement.h"
#include "base/tensor.h"

namespace cartesian {

/// One named tensor of a checkpoint. Names are logical: independent of ranks and placement.
struct NamedTensor {
  std::string name;
  Shape shape;
  std::int64_t offset = 0;  ///< in elements, in each of the flat arrays
  double init_std = 0;      ///< of the normal that initialises it; 0: `init_value` everywhere
  float init_value = 0;
  bool decay = false;  ///< weight decay applies
};

/// A tensor as the model uses it: one NamedTensor or several side by side.
struct ParameterRef {
  std::int64_t offset = 0;
  Shape shape;
};

/// Elements [begin, end) of the flat arrays.
struct ElementRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t size() const { return end - begin; }
};
/// What both have; empty at the latter begin if they have nothing in common.
ElementRange intersect(const ElementRange& a, const ElementRange& b);

/// One expert on this rank: a contiguous range of the flat arrays.
struct ExpertRange {
  int layer = 0;
  int group = 0;
  int expert = 0;
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::vector<int> replicas;  ///< ranks that hold it, ascending
};

class ParameterStore {
 public:
  ParameterStore() = default;
  /// For the names and shapes alone: allocate() leaves the arrays empty.
  static ParameterStore layout_only();
  /// Sharded, on rank `rank` of `ranks`.
  ParameterStore(int rank, int ranks) : shard_(rank), shards_(ranks) {}

  /// Adds tensors side by side (their offsets are set here) and returns the whole as `shape`.
  ParameterRef add(std::vector<NamedTensor> tensors, Shape shape);
  /// What is added from here on until end_expert() belongs to this expert. REQUIRES: the dense part
  /// is complete.
  void begin_expert(int layer, int group, int expert, std::span<const int> replicas);
  void end_expert();
  /// Allocates the arrays, zeroed but for what remove_experts() left. Call after the last add().
  void allocate();
  /// Takes the experts out, from the arrays, too; then others may be added, and allocate() called
  /// again. Of the dense part weights and moments stay as they are, gradients become zero. What
  /// experts that go have had of memory is kept for those that come.
  void remove_experts();
  /// Draws the initial weights, keyed by (seed, name, element).
  void initialize(std::uint64_t seed);

  Tensor weight(const ParameterRef& ref) { return view(weights_, ref); }
  Tensor gradient(const ParameterRef& ref) { return view(gradients_, ref); }

  std::span<float> weights() { return weights_; }
  std::span<float> gradients() { return gradients_; }
  /// All that this rank has: of dense_moments(), then of the experts. Not sharded, they lie as the
  /// weights do.
  std::span<float> first_moments() { return first_moments_; }
  std::span<float> second_moments() { return second_moments_; }
  /// Of elements within dense_moments(), or within the experts.
  std::span<float> first_moments(const ElementRange& range) {
    return moments(first_moments_, range);
  }
  std::span<float> second_moments(const ElementRange& range) {
    return moments(second_moments_, range);
  }
  std::span<const NamedTensor> tensors() const { return tensors_; }
  std::span<const ExpertRange> experts() const { return experts_; }
  /// Elements of the dense part: [0, dense_size()).
  std::int64_t dense_size() const { return dense_size_; }
  std::int64_t size() const { return size_; }
  /// Where the shares of `ranks` ranks in the dense part begin and end: [ranks + 1], ascending, at
  /// cache lines.
  std::vector<std::size_t> dense_bounds(int ranks) const;
  ElementRange dense_share(int rank, int ranks) const;
  bool sharded() const { return shards_ > 1; }
  /// Dense elements whose moments this rank has: all, or its share.
  ElementRange dense_moments() const { return dense_share(shard_, shards_); }
  /// Of weights, gradients and moments.
  std::size_t bytes() const {
    return 2 * (weights_.size() + first_moments_.size()) * sizeof(float);
  }

 private:
  static Tensor view(std::vector<float>& array, const ParameterRef& ref);
  std::span<float> moments(std::vector<float>& array, const ElementRange& range) const;

  int shard_ = 0;
  int shards_ = 1;
  std::vector<NamedTensor> tensors_;
  std::vector<ExpertRange> experts_;
  std::int64_t size_ = 0;
  std::int64_t dense_size_ = 0;
  bool in_expert_ = false;
  bool layout_only_ = false;
  bool allocated_ = false;
  std::vector<float> weights_;
  std::vector<float> gradients_;
  std::vector<float> first_moments_;
  std::vector<float> second_moments_;
};

}  // namespace cartesian
