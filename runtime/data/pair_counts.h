#pragma once
// PairCounts: how often each ordered pair of tokens was seen: a hash table with open addressing.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace cartesian {

/// 16 bytes a slot, at most three quarters full. Not thread-safe while it changes.
class PairCounts {
 public:
  /// Counts one more of (first, second); true if it is the first. REQUIRES: both are >= 0.
  bool add(std::int32_t first, std::int32_t second);
  /// 0 if it was never seen.
  std::int64_t count(std::int32_t first, std::int32_t second) const;

 private:
  struct Slot {
    std::uint64_t pair = 0;
    std::int64_t count = 0;  // 0: empty
  };
  /// The slot of `pair`, or the empty one where it belongs.
  std::size_t find(std::uint64_t pair) const;
  void grow();

  std::vector<Slot> slots_;  // a power of two of them, or none yet
  std::size_t used_ = 0;
};

}  // namespace cartesian
