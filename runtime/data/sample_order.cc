#include "runtime/data/sample_order.h"

#include <fmt/format.h>

#include "base/check.h"
#include "base/random.h"

namespace cartesian {

SampleOrder::SampleOrder(const TokenWindows& windows, std::uint64_t seed, bool shuffled)
    : windows_(windows), seed_(seed), shuffled_(shuffled) {}

std::int64_t SampleOrder::window_of(std::int64_t sequence) const {
  check(sequence >= 0, "sequences are counted from 0");
  const std::int64_t count = windows_.count();
  if (!shuffled_) {
    return sequence % count;
  }
  const std::uint64_t key = random_key(seed_, fmt::format("epoch{}", sequence / count));
  return static_cast<std::int64_t>(random_permute(key, static_cast<std::uint64_t>(sequence % count),
                                                  static_cast<std::uint64_t>(count)));
}

void SampleOrder::fill(std::int64_t first, std::int64_t count, std::span<std::int32_t> ids,
                       std::span<std::int32_t> targets) const {
  const auto length = static_cast<std::size_t>(windows_.length());
  const std::size_t size = static_cast<std::size_t>(count) * length;
  check(count >= 0 && ids.size() == size && targets.size() == size,
        "a batch's buffers have its size");
  for (std::int64_t i = 0; i < count; ++i) {
    const std::size_t at = static_cast<std::size_t>(i) * length;
    windows_.read(window_of(first + i), ids.subspan(at, length), targets.subspan(at, length));
  }
}

void SampleOrder::fill_document_starts(std::int64_t first, std::int64_t count,
                                       std::span<std::int32_t> starts) const {
  const auto length = static_cast<std::size_t>(windows_.length());
  check(count >= 0 && starts.size() == static_cast<std::size_t>(count) * length,
        "a batch's buffers have its size");
  for (std::int64_t i = 0; i < count; ++i) {
    windows_.read_document_starts(window_of(first + i),
                                  starts.subspan(static_cast<std::size_t>(i) * length, length));
  }
}

}  // namespace cartesian
