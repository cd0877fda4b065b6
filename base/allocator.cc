#include "base/allocator.h"

#include <new>

namespace cartesian {

namespace {
constexpr std::align_val_t kAlignment{64};
}

void* HostAllocator::allocate(std::size_t bytes) { return ::operator new(bytes, kAlignment); }

void HostAllocator::release(void* block, std::size_t bytes) noexcept {
  ::operator delete(block, bytes, kAlignment);
}

}  // namespace cartesian
