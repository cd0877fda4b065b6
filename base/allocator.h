#pragma once
// Allocator: where an arena's blocks come from: the host's memory or a device's.

#include <cstddef>

#include "base/tensor.h"

namespace cartesian {

/// Thread-safe. Throws std::bad_alloc when there is no memory.
class Allocator {
 public:
  virtual ~Allocator() = default;
  virtual Device device() const = 0;
  /// At least 64-byte aligned, uninitialised.
  virtual void* allocate(std::size_t bytes) = 0;
  virtual void release(void* block, std::size_t bytes) noexcept = 0;
};

class HostAllocator final : public Allocator {
 public:
  Device device() const override { return Device::cpu; }
  void* allocate(std::size_t bytes) override;
  void release(void* block, std::size_t bytes) noexcept override;
};

}  // namespace cartesian
