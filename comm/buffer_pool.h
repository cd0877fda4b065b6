#pragma once
// BufferPool: memory for messages in flight, kept and reused. An arena will not do: transfers that
// overlap end in another order than they began. Not thread-safe: belongs to one rank's compute
// thread.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/allocator.h"

namespace cartesian {

class BufferPool {
 public:
  BufferPool() = default;
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  /// A buffer on loan; given back on destruction. The pool must outlive it.
  class Lease {
   public:
    Lease() = default;
    Lease(BufferPool& pool, std::size_t block) : pool_(&pool), block_(block) {}
    Lease(Lease&& other) noexcept : pool_(other.pool_), block_(other.block_) {
      other.pool_ = nullptr;
    }
    Lease& operator=(Lease&& other) noexcept;
    ~Lease();
    /// 64-byte aligned, uninitialised.
    std::byte* data() const;

   private:
    BufferPool* pool_ = nullptr;
    std::size_t block_ = 0;
  };

  /// The smallest free buffer that holds `bytes`; if there is none, a free one is replaced by a
  /// larger one, or one is added.
  Lease take(std::size_t bytes);

  /// How often memory was taken from the system: constant at steady load.
  std::int64_t growths() const { return growths_; }

 private:
  struct Block {
    std::byte* data = nullptr;
    std::size_t size = 0;
    bool free = true;
  };
  std::size_t find_free(std::size_t bytes) const;
  void grow(Block& block, std::size_t bytes);

  HostAllocator allocator_;
  std::vector<Block> blocks_;
  std::int64_t growths_ = 0;
};

}  // namespace cartesian
