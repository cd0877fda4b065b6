#include "runtime/model/parameters.h"

#include <algorithm>

#include "base/check.h"
#include "base/random.h"

namespace cartesian {

namespace {
// Tensors used as one start at a cache line.
constexpr std::int64_t kAlignment = 16;
}  // namespace

ParameterStore ParameterStore::layout_only() {
  ParameterStore store;
  store.layout_only_ = true;
  return store;
}

ElementRange intersect(const ElementRange& a, const ElementRange& b) {
  const std::int64_t begin = std::max(a.begin, b.begin);
  return {begin, std::max(begin, std::min(a.end, b.end))};
}

ParameterRef ParameterStore::add(std::vector<NamedTensor> tensors, Shape shape) {
  check(weights_.empty(), "parameters are added before allocate()");
  size_ = (size_ + kAlignment - 1) / kAlignment * kAlignment;
  const ParameterRef ref{size_, shape};
  for (NamedTensor& tensor : tensors) {
    tensor.offset = size_;
    size_ += tensor.shape.numel();
    tensors_.push_back(std::move(tensor));
  }
  check(size_ - ref.offset == shape.numel(), "the parts of a parameter fill it");
  if (!in_expert_) {
    check(experts_.empty(), "the dense part comes before the experts");
    dense_size_ = size_;
  }
  return ref;
}

void ParameterStore::begin_expert(int layer, int group, int expert, std::span<const int> replicas) {
  check(!in_expert_, "experts do not nest");
  size_ = (size_ + kAlignment - 1) / kAlignment * kAlignment;
  in_expert_ = true;
  experts_.push_back({layer, group, expert, size_, size_, {replicas.begin(), replicas.end()}});
}

void ParameterStore::end_expert() {
  check(in_expert_, "end_expert() follows begin_expert()");
  in_expert_ = false;
  experts_.back().end = size_;
}

void ParameterStore::allocate() {
  const auto size = layout_only_ ? 0 : static_cast<std::size_t>(size_);
  weights_.assign(size, 0.0F);
  gradients_.assign(size, 0.0F);
  const std::int64_t held = dense_moments().size() + size_ - dense_size_;
  const auto moments = layout_only_ ? 0 : static_cast<std::size_t>(held);
  first_moments_.assign(moments, 0.0F);
  second_moments_.assign(moments, 0.0F);
}

std::vector<std::size_t> ParameterStore::dense_bounds(int ranks) const {
  std::vector<std::size_t> bounds;
  for (int rank = 0; rank <= ranks; ++rank) {
    const std::int64_t even = dense_size_ * rank / ranks;
    const std::int64_t aligned = (even + kAlignment - 1) / kAlignment * kAlignment;
    bounds.push_back(static_cast<std::size_t>(std::min(aligned, dense_size_)));
  }
  return bounds;
}

ElementRange ParameterStore::dense_share(int rank, int ranks) const {
  const std::vector<std::size_t> bounds = dense_bounds(ranks);
  const auto r = static_cast<std::size_t>(rank);
  return {static_cast<std::int64_t>(bounds[r]), static_cast<std::int64_t>(bounds[r + 1])};
}

std::span<float> ParameterStore::moments(std::vector<float>& array,
                                         const ElementRange& range) const {
  const ElementRange dense = dense_moments();
  const bool of_experts = range.begin >= dense_size_ && range.end <= size_;
  check(of_experts || (range.begin >= dense.begin && range.end <= dense.end),
        "moments are of this rank's share or its experts");
  const std::int64_t begin =
      of_experts ? dense.size() + range.begin - dense_size_ : range.begin - dense.begin;
  return std::span(array).subspan(static_cast<std::size_t>(begin),
                                  static_cast<std::size_t>(range.size()));
}

void ParameterStore::initialize(std::uint64_t seed) {
  for (const NamedTensor& tensor : tensors_) {
    const std::span<float> values = weights().subspan(
        static_cast<std::size_t>(tensor.offset), static_cast<std::size_t>(tensor.shape.numel()));
    if (tensor.init_std == 0) {
      std::ranges::fill(values, tensor.init_value);
      continue;
    }
    const std::uint64_t key = random_key(seed, tensor.name);
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<float>(tensor.init_std * random_normal(key, i));
    }
  }
}

Tensor ParameterStore::view(std::vector<float>& array, const ParameterRef& ref) {
  return {array.data() + ref.offset, ref.shape};
}

}  // namespace cartesian
