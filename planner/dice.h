#pragma once
// Dice: a stream of random numbers for searches, the same for a seed on any machine.

#include <cstdint>
#include <utility>
#include <vector>

#include "base/index.h"
#include "base/random.h"

namespace cartesian {

class Dice {
 public:
  explicit Dice(std::uint64_t seed) : key_(random_key(seed, "search")) {}
  /// REQUIRES: count > 0.
  int below(int count) {
    return static_cast<int>(random_bits(key_, next_++) % static_cast<std::uint64_t>(count));
  }
  /// Within [0, 1).
  double uniform() { return random_uniform(key_, next_++); }
  template <class T>
  void shuffle(std::vector<T>& items) {
    for (std::size_t i = items.size(); i > 1; --i) {
      std::swap(items[i - 1], items[as_index(below(static_cast<int>(i)))]);
    }
  }

 private:
  std::uint64_t key_;
  std::uint64_t next_ = 0;
};

}  // namespace cartesian
