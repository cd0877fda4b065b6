#pragma once
// Tensor: a typed, shaped view of contiguous row-major memory. It owns nothing: an Arena, a
// ParameterStore or a std::vector does, and must outlive it. Copying a Tensor copies the view. Like
// a span, a const Tensor may be written to.

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "base/check.h"
#include "base/dtype.h"

namespace cartesian {

enum class Device : std::uint8_t { cpu, cuda };

/// Up to four extents, outermost first.
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<std::int64_t> dims);

  int rank() const { return rank_; }
  std::int64_t operator[](int i) const;
  std::int64_t numel() const;
  bool operator==(const Shape&) const = default;
  /// "[2, 3]".
  std::string to_string() const;

 private:
  static constexpr int kMaxRank = 4;
  std::array<std::int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

class Tensor {
 public:
  /// No elements, no memory; `defined()` is false.
  Tensor() = default;
  Tensor(void* data, DType dtype, Shape shape, Device device = Device::cpu)
      : data_(data), shape_(shape), dtype_(dtype), device_(device) {}
  /// A float32, bfloat16, int32 or int64 view of memory on the host.
  template <class T>
  Tensor(T* data, Shape shape) : Tensor(data, dtype_of<T>, shape) {}

  bool defined() const { return shape_.rank() > 0; }
  const Shape& shape() const { return shape_; }
  std::int64_t dim(int i) const { return shape_[i]; }
  /// The first extent.
  std::int64_t rows() const { return shape_[0]; }
  /// Elements of one row: the product of the other extents.
  std::int64_t cols() const;
  std::int64_t numel() const { return shape_.numel(); }
  std::size_t bytes() const { return static_cast<std::size_t>(numel()) * size_of(dtype_); }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }
  void* raw() const { return data_; }

  /// REQUIRES: T is the tensor's dtype.
  template <class T>
  T* data() const {
    check(dtype_of<T> == dtype_, "tensor accessed with the wrong element type");
    return static_cast<T*>(data_);
  }
  template <class T>
  std::span<T> span() const {
    return {data<T>(), static_cast<std::size_t>(numel())};
  }

  /// Rows [begin, begin + count). REQUIRES: they exist.
  Tensor slice(std::int64_t begin, std::int64_t count) const;
  /// The same elements in another shape. REQUIRES: equal numel().
  Tensor reshape(Shape shape) const;

 private:
  void* data_ = nullptr;
  Shape shape_;
  DType dtype_ = DType::f32;
  Device device_ = Device::cpu;
};

}  // namespace cartesian
