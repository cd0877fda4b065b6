#include "base/allocator.h"

#include <sys/mman.h>

#include <new>

namespace cartesian {

namespace {

/// Blocks of at least one huge page begin on one and ask for them: matrix products then miss few
/// translations of addresses, and the first touch of a block faults 512 times less often.
constexpr std::size_t kHugePage = std::size_t{2} << 20;

std::align_val_t alignment_of(std::size_t bytes) {
  return std::align_val_t{bytes >= kHugePage ? kHugePage : 64};
}

}  // namespace

void* HostAllocator::allocate(std::size_t bytes) {
  void* block = ::operator new(bytes, alignment_of(bytes));
  if (bytes >= kHugePage) {
    madvise(block, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);  // a wish: it may be refused
  }
  return block;
}

void HostAllocator::release(void* block, std::size_t bytes) noexcept {
  ::operator delete(block, bytes, alignment_of(bytes));
}

}  // namespace cartesian
