#pragma once
// SampleOrder: which window of the data is sequence number i of a run. Every epoch is a permutation
// of all windows, its own, or all windows as the file has them; it depends on seed and epoch only,
// never on ranks or on how sequences are grouped into steps, so that a run goes on from any
// sequence on any number of ranks.

#include <cstdint>
#include <span>

#include "runtime/data/token_windows.h"

namespace cartesian {

/// Immutable, thread-safe.
class SampleOrder {
 public:
  /// `windows` must outlive this.
  SampleOrder(const TokenWindows& windows, std::uint64_t seed, bool shuffled = true);

  /// The window of sequence `sequence`, counted from the beginning of the run.
  std::int64_t window_of(std::int64_t sequence) const;

  /// Reads sequences [first, first + count) into `ids` and `targets`, [count, length] each.
  void fill(std::int64_t first, std::int64_t count, std::span<std::int32_t> ids,
            std::span<std::int32_t> targets) const;
  /// Where the document of each of their tokens begins within its sequence, [count, length].
  void fill_document_starts(std::int64_t first, std::int64_t count,
                            std::span<std::int32_t> starts) const;

 private:
  const TokenWindows& windows_;
  std::uint64_t seed_;
  bool shuffled_;
};

}  // namespace cartesian
