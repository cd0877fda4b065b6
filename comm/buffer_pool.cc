#include "comm/buffer_pool.h"

#include <algorithm>
#include <utility>

namespace cartesian {

BufferPool::~BufferPool() {
  for (const Block& block : blocks_) {
    allocator_.release(block.data, block.size);
  }
}

BufferPool::Lease& BufferPool::Lease::operator=(Lease&& other) noexcept {
  std::swap(pool_, other.pool_);
  std::swap(block_, other.block_);
  return *this;
}

BufferPool::Lease::~Lease() {
  if (pool_ != nullptr) {
    pool_->blocks_[block_].free = true;
  }
}

std::byte* BufferPool::Lease::data() const {
  return pool_ == nullptr ? nullptr : pool_->blocks_[block_].data;
}

BufferPool::Lease BufferPool::take(std::size_t bytes) {
  if (bytes == 0) {
    return {};
  }
  std::size_t chosen = find_free(bytes);
  if (chosen == blocks_.size()) {
    blocks_.emplace_back();
  }
  Block& block = blocks_[chosen];
  if (block.size < bytes) {
    grow(block, bytes);
  }
  block.free = false;
  return {*this, chosen};
}

/// The smallest free block that holds `bytes`, else the largest free one, else blocks_.size().
std::size_t BufferPool::find_free(std::size_t bytes) const {
  const std::size_t none = blocks_.size();
  std::size_t best = none;
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    if (!blocks_[i].free) {
      continue;
    }
    const std::size_t size = blocks_[i].size;
    const std::size_t best_size = best == none ? 0 : blocks_[best].size;
    const bool fits = size >= bytes;
    const bool best_fits = best != none && best_size >= bytes;
    if (best == none || (fits && (!best_fits || size < best_size)) ||
        (!fits && !best_fits && size > best_size)) {
      best = i;
    }
  }
  return best;
}

void BufferPool::grow(Block& block, std::size_t bytes) {
  // A quarter to spare, of few rows more: those that a rank receives vary from step to step.
  constexpr std::size_t kLeastSpare = 4096;
  const std::size_t size = bytes + std::max(bytes / 4, kLeastSpare);
  allocator_.release(std::exchange(block.data, nullptr), std::exchange(block.size, 0));
  block.data = static_cast<std::byte*>(allocator_.allocate(size));
  block.size = size;
  ++growths_;
}

}  // namespace cartesian
