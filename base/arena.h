#pragma once
// Arena: bump allocation for activations and scratch. It only grows; growth is counted, so that a
// test can show that it stops after warm-up. Not thread-safe: one arena belongs to one rank's
// compute thread.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/allocator.h"
#include "base/tensor.h"

namespace cartesian {

class Arena {
 public:
  /// `allocator` must outlive the arena.
  explicit Arena(Allocator& allocator);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  /// 64-byte aligned, uninitialised, valid until reset() or release() of an older mark. Zero bytes
  /// is allowed.
  void* allocate(std::size_t bytes);
  Tensor tensor(DType dtype, Shape shape);
  /// As tensor(), but every byte is zero. REQUIRES: a host arena.
  Tensor zeros(DType dtype, Shape shape);

  /// A position in the stack of allocations; release() frees everything allocated since.
  struct Mark {
    std::size_t block = 0;
    std::size_t offset = 0;
    std::size_t used = 0;  ///< bytes in use up to here, without what blocks' ends leave over
  };
  Mark mark() const { return position_; }
  void release(Mark mark);

  /// Frees everything. If more than one block was needed, merges them into one with a quarter to
  /// spare.
  void reset();

  std::size_t capacity() const;
  /// The most bytes ever in use at once.
  std::size_t peak() const { return peak_; }
  /// How often memory was taken from the allocator.
  std::int64_t growths() const { return growths_; }

 private:
  struct Block {
    void* data = nullptr;
    std::size_t size = 0;
  };
  void add_block(std::size_t bytes);

  Allocator& allocator_;
  std::vector<Block> blocks_;
  Mark position_;
  std::size_t peak_ = 0;
  std::int64_t growths_ = 0;
};

/// Releases on destruction what was allocated since construction.
class ArenaScope {
 public:
  explicit ArenaScope(Arena& arena) : arena_(arena), mark_(arena.mark()) {}
  ~ArenaScope() { arena_.release(mark_); }
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  Arena& arena_;
  Arena::Mark mark_;
};

}  // namespace cartesian
