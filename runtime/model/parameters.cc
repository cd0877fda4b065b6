#include "runtime/model/parameters.h"

#include <algorithm>

#include "base/check.h"
#include "base/random.h"

namespace cartesian {

namespace {
// Tensors used as one start at a cache line.
constexpr std::int64_t kAlignment = 16;

/// New elements are zero. Unlike resize(), never takes more memory than that.
void resize_exactly(std::vector<float>& array, std::size_t size) {
  array.reserve(size);
  array.resize(size);
}
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
  check(!allocated_, "parameters are added before allocate()");
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
  check(!allocated_, "a store is allocated once after the last add()");
  allocated_ = true;
  if (layout_only_) {
    return;
  }
  const auto size = static_cast<std::size_t>(size_);
  const auto moments = static_cast<std::size_t>(dense_moments().size() + size_ - dense_size_);
  resize_exactly(weights_, size);
  resize_exactly(first_moments_, moments);
  resize_exactly(second_moments_, moments);
  gradients_.assign(size, 0.0F);
}

void ParameterStore::remove_experts() {
  check(!in_expert_, "experts are complete before they are removed");
  std::erase_if(tensors_, [&](const NamedTensor& tensor) { return tensor.offset >= dense_size_; });
  experts_.clear();
  size_ = dense_size_;
  allocated_ = false;
  if (layout_only_) {
    return;
  }
  gradients_ = std::vector<float>();  // before the others grow
  weights_.resize(static_cast<std::size_t>(dense_size_));
  const auto moments = static_cast<std::size_t>(dense_moments().size());
  first_moments_.resize(moments);
  second_moments_.resize(moments);
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
