#include "base/tensor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace cartesian {

Shape::Shape(std::initializer_list<std::int64_t> dims) : rank_(static_cast<int>(dims.size())) {
  check(dims.size() <= kMaxRank, "a shape has at most four extents");
  int i = 0;
  for (const std::int64_t dim : dims) {
    check(dim >= 0, "a shape has no negative extent");
    dims_.at(static_cast<std::size_t>(i++)) = dim;
  }
}

std::int64_t Shape::operator[](int i) const {
  check(i >= 0 && i < rank_, "shape index out of range");
  return dims_.at(static_cast<std::size_t>(i));
}

std::int64_t Shape::numel() const {
  if (rank_ == 0) {
    return 0;
  }
  std::int64_t product = 1;
  for (int i = 0; i < rank_; ++i) {
    product *= (*this)[i];
  }
  return product;
}

std::string Shape::to_string() const {
  return fmt::format("[{}]", fmt::join(dims_.begin(), dims_.begin() + rank_, ", "));
}

std::int64_t Tensor::cols() const {
  std::int64_t product = 1;
  for (int i = 1; i < shape_.rank(); ++i) {
    product *= shape_[i];
  }
  return product;
}

Tensor Tensor::slice(std::int64_t begin, std::int64_t count) const {
  check(begin >= 0 && count >= 0 && begin + count <= rows(), "slice out of range");
  auto* start =
      static_cast<std::byte*>(data_) + static_cast<std::size_t>(begin * cols()) * size_of(dtype_);
  switch (shape_.rank()) {
    case 1:
      return {start, dtype_, {count}, device_};
    case 2:
      return {start, dtype_, {count, shape_[1]}, device_};
    case 3:
      return {start, dtype_, {count, shape_[1], shape_[2]}, device_};
    default:
      return {start, dtype_, {count, shape_[1], shape_[2], shape_[3]}, device_};
  }
}

Tensor Tensor::reshape(Shape shape) const {
  check(shape.numel() == numel(), "reshape keeps the number of elements");
  return {data_, dtype_, shape, device_};
}

}  // namespace cartesian
