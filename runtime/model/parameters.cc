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
  first_moments_.assign(size, 0.0F);
  second_moments_.assign(size, 0.0F);
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
