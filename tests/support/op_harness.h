#pragma once
// What a test needs to call an op: tensors that own their memory and convert to float64, and a
// context on a device. One test body serves every device and dtype.

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "base/context.h"
#include "base/random.h"
#include "kernels/device_runtime.h"
#include "tests/support/reference.h"

namespace cartesian::test {

/// Room for rounding of one op's results: float32, or bfloat16's eight bits.
inline double tolerance_of(DType dtype, double float32 = 1e-5) {
  return dtype == DType::bf16 ? 0x1p-7 : float32;
}

/// A host tensor with its memory; zero at first. Copies are deep.
class HostTensor {
 public:
  HostTensor(DType dtype, Shape shape)
      : dtype_(dtype),
        shape_(shape),
        memory_(static_cast<std::size_t>(shape.numel()) * size_of(dtype)) {}
  HostTensor(DType dtype, Shape shape, const Doubles& values) : HostTensor(dtype, shape) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      set(i, values[i]);
    }
  }
  HostTensor(Shape shape, const std::vector<std::int32_t>& values) : HostTensor(DType::i32, shape) {
    check(values.size() == static_cast<std::size_t>(shape.numel()), "one value per element");
    if (!values.empty()) {
      std::memcpy(memory_.data(), values.data(), memory_.size());
    }
  }
  /// Normally distributed, rounded to `dtype`.
  static HostTensor random(DType dtype, Shape shape, std::uint64_t key, double scale = 1) {
    HostTensor result(dtype, shape);
    for (std::size_t i = 0; i < result.size(); ++i) {
      result.set(i, scale * random_normal(key, i));
    }
    return result;
  }

  Tensor tensor() { return {memory_.data(), dtype_, shape_}; }
  const Shape& shape() const { return shape_; }
  operator Tensor() { return tensor(); }  // NOLINT(google-explicit-constructor): as ops are called
  std::size_t size() const { return static_cast<std::size_t>(shape_.numel()); }

  template <class T>
  T at(std::size_t i) const {
    T value;
    std::memcpy(&value, memory_.data() + i * sizeof(T), sizeof(T));
    return value;
  }
  void set(std::size_t i, double value) {
    if (dtype_ == DType::bf16) {
      put(i, to_bfloat16(static_cast<float>(value)));
    } else {
      put(i, static_cast<float>(value));
    }
  }
  /// float32 or bfloat16, exactly.
  Doubles values() const {
    Doubles result(size());
    for (std::size_t i = 0; i < result.size(); ++i) {
      result[i] = dtype_ == DType::bf16 ? to_float(at<bfloat16>(i)) : at<float>(i);
    }
    return result;
  }
  bool operator==(const HostTensor& other) const { return memory_ == other.memory_; }

 private:
  template <class T>
  void put(std::size_t i, T value) {
    std::memcpy(memory_.data() + i * sizeof(T), &value, sizeof(T));
  }

  DType dtype_;
  Shape shape_;
  std::vector<std::byte> memory_;
};

/// A context on a device, with its memory and stream. On the CPU tensors stay where they are.
class OpHarness {
 public:
  explicit OpHarness(int threads = 1, Device device = Device::cpu)
      : memory_(device == Device::cuda ? make_cuda_allocator() : std::make_unique<HostAllocator>()),
        scratch_(*memory_),
        data_(*memory_),
        context_{.device = device,
                 .stream = device == Device::cuda ? make_cuda_stream() : nullptr,
                 .threads = threads,
                 .scratch = scratch_,
                 .metrics = metrics_,
                 .clock = clock_} {}
  ~OpHarness() {
    if (context_.device == Device::cuda) {
      destroy_cuda_stream(context_.stream);
    }
  }
  OpHarness(const OpHarness&) = delete;
  OpHarness& operator=(const OpHarness&) = delete;

  const Context& context() const { return context_; }
  operator const Context&() const { return context_; }  // NOLINT(google-explicit-constructor)

  /// The tensor where the device can read and write it.
  Tensor send(HostTensor& host) {
    const Tensor view = host.tensor();
    if (context_.device == Device::cpu || view.numel() == 0) {
      return {view.raw(), view.dtype(), view.shape(), context_.device};
    }
    const Tensor copy = data_.tensor(view.dtype(), view.shape());
    cuda_copy(context_, view, copy);
    return copy;
  }
  /// What the op left in `sent`, back into `host`.
  void fetch(const Tensor& sent, HostTensor& host) {
    if (context_.device == Device::cuda && sent.numel() > 0) {
      cuda_copy(context_, sent, host.tensor());
    }
  }

 private:
  std::unique_ptr<Allocator> memory_;
  Arena scratch_;
  Arena data_;
  Metrics metrics_;
  SteadyClock clock_;
  Context context_;
};

/// Runs `op`, which makes its own tensors and returns the results, with 1, 2 and 3 threads.
template <class Op>
void expect_same_bits_for_any_threads(const Op& op) {
  OpHarness one(1);
  const std::vector<HostTensor> expected = op(one);
  for (const int threads : {2, 3}) {
    OpHarness harness(threads);
    EXPECT_TRUE(op(harness) == expected) << threads << " threads";
  }
}

/// For test bodies parameterised over devices: skips where the device cannot be used.
#define CARTESIAN_SKIP_WITHOUT(device)                                  \
  if ((device) == Device::cuda && !cuda_unavailable_reason().empty()) { \
    GTEST_SKIP() << cuda_unavailable_reason();                          \
  }                                                                     \
  static_assert(true)

inline std::string name_of_device(Device device) { return device == Device::cuda ? "cuda" : "cpu"; }

}  // namespace cartesian::test
