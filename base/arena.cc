#include "base/arena.h"

#include <algorithm>
#include <cstring>

namespace cartesian {

namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kMinBlock = std::size_t{2} << 20;  // what gets a huge page

std::size_t align_up(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

Arena::Arena(Allocator& allocator) : allocator_(allocator) {}

Arena::~Arena() {
  for (const Block& block : blocks_) {
    allocator_.release(block.data, block.size);
  }
}

void* Arena::allocate(std::size_t bytes) {
  const std::size_t size = align_up(bytes);
  while (position_.block < blocks_.size() &&
         position_.offset + size > blocks_[position_.block].size) {
    position_ = {position_.block + 1, 0, position_.used};
  }
  if (position_.block == blocks_.size()) {
    add_block(size);
  }
  auto* start = static_cast<std::byte*>(blocks_[position_.block].data) + position_.offset;
  position_.offset += size;
  position_.used += size;
  peak_ = std::max(peak_, position_.used);
  return start;
}

Tensor Arena::tensor(DType dtype, Shape shape) {
  return {allocate(static_cast<std::size_t>(shape.numel()) * size_of(dtype)), dtype, shape,
          allocator_.device()};
}

Tensor Arena::zeros(DType dtype, Shape shape) {
  check(allocator_.device() == Device::cpu, "zeros() needs a host arena");
  const Tensor result = tensor(dtype, shape);
  std::memset(result.raw(), 0, result.bytes());
  return result;
}

void Arena::release(Mark mark) {
  check(mark.block < position_.block ||
            (mark.block == position_.block && mark.offset <= position_.offset),
        "arena marks are released in reverse order");
  position_ = mark;
}

void Arena::reset() {
  position_ = {};
  if (blocks_.size() <= 1) {
    return;
  }
  for (const Block& block : blocks_) {
    allocator_.release(block.data, block.size);
  }
  blocks_.clear();
  add_block(peak_ + peak_ / 4);
}

std::size_t Arena::capacity() const {
  std::size_t total = 0;
  for (const Block& block : blocks_) {
    total += block.size;
  }
  return total;
}

void Arena::add_block(std::size_t bytes) {
  // A quarter of what there is, so that slowly growing loads do not allocate block after block.
  const std::size_t size = align_up(std::max({bytes, kMinBlock, capacity() / 4}));
  blocks_.push_back({allocator_.allocate(size), size});
  ++growths_;
}

}  // namespace cartesian
