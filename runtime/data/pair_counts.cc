#include "runtime/data/pair_counts.h"

#include <bit>

namespace cartesian {

namespace {

constexpr std::size_t kFirstSlots = 1024;

std::uint64_t join(std::int32_t first, std::int32_t second) {
  return (static_cast<std::uint64_t>(first) << 32) | static_cast<std::uint32_t>(second);
}

}  // namespace

bool PairCounts::add(std::int32_t first, std::int32_t second) {
  if ((used_ + 1) * 4 > slots_.size() * 3) {
    grow();
  }
  const std::uint64_t pair = join(first, second);
  Slot& slot = slots_[find(pair)];
  slot.pair = pair;
  const bool is_new = slot.count++ == 0;
  used_ += is_new ? 1 : 0;
  return is_new;
}

std::int64_t PairCounts::count(std::int32_t first, std::int32_t second) const {
  return slots_.empty() ? 0 : slots_[find(join(first, second))].count;
}

std::size_t PairCounts::find(std::uint64_t pair) const {
  // Fibonacci hashing (Knuth, TAOCP 3, section 6.4): all bits reach the product's topmost ones.
  const std::size_t mask = slots_.size() - 1;
  const int bits = std::countr_zero(slots_.size());
  std::size_t at = static_cast<std::size_t>((pair * 0x9E3779B97F4A7C15ULL) >> (64 - bits));
  while (slots_[at].count != 0 && slots_[at].pair != pair) {
    at = (at + 1) & mask;
  }
  return at;
}

void PairCounts::grow() {
  std::vector<Slot> old(slots_.empty() ? kFirstSlots : 2 * slots_.size());
  old.swap(slots_);
  for (const Slot& slot : old) {
    if (slot.count != 0) {
      slots_[find(slot.pair)] = slot;
    }
  }
}

}  // namespace cartesian
