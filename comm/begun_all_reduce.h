#pragma once
// BegunAllReduce: all_reduce_sum() in parts, so that other work fits in between.

#include <memory>
#include <span>

#include "comm/buffer_pool.h"
#include "comm/collectives.h"

namespace cartesian {

/// With the bits of all_reduce_sum(). Takes (R - 1) / R of the array's memory from `buffers`, which
/// must outlive it. Collective over `team`, every part: members do the same parts of the same sums
/// in the same order.
class BegunAllReduce {
 public:
  /// Posts what the others add up. `data` must stay untouched until finish().
  BegunAllReduce(Transport& transport, BufferPool& buffers, Team team, std::span<float> data,
                 CommPhase phase);

  /// Waits for what is added up here, adds it up, and posts the sums.
  void reduce(const Context& context);
  /// Waits for the others' sums: `data` is the sum. After reduce().
  void finish();

 private:
  Transport& transport_;
  Team team_;
  std::span<float> data_;
  CommPhase phase_;
  BufferPool::Lease received_;
  std::unique_ptr<Request> request_;  // last, so that it ends before the buffer goes back
};

}  // namespace cartesian
