#include "runtime/data/charsmap.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

#include "runtime/data/utf8.h"

namespace cartesian {

namespace {

// The library collects the matches of one position in an array of this size, and reads as many as
// there are.
constexpr int kMaxMatches = 32;
// Of the longest sequence of bytes that is replaced; Unicode's compatibility forms have up to 54. A
// trie with a cycle has no longest.
constexpr int kMaxDepth = 256;

/// One unit of the trie.
struct Unit {
  std::uint32_t bits;

  bool has_leaf() const { return (bits >> 8 & 1U) != 0; }
  std::uint32_t value() const { return bits & 0x7FFFFFFFU; }
  std::uint32_t label() const { return bits & 0x800000FFU; }
  std::uint32_t offset() const { return bits >> 10 << ((bits & 0x200U) >> 6); }
};

class Trie {
 public:
  Trie(std::string_view units, std::string_view strings)
      : size_(units.size() / sizeof(std::uint32_t)), strings_(strings), matches_(size_, kUnknown) {
    units_.resize(size_);
    std::memcpy(units_.data(), units.data(), size_ * sizeof(std::uint32_t));
  }

  bool is_safe() { return size_ > 0 && matches_below(unit(0).offset(), 0).has_value(); }

 private:
  static constexpr int kUnknown = -1;

  Unit unit(std::uint64_t index) const { return {units_[index]}; }

  bool is_string(std::uint32_t value) const {
    return value < strings_.size() && !is_utf8_continuation(strings_[value]);
  }

  /// The most matches on a path that goes on from `base`, where the children of a node lie; nothing
  /// if a path leads out of bounds.
  std::optional<int> matches_below(std::uint32_t base, int depth) {
    if (depth > kMaxDepth || (base | 0xFFU) >= size_) {
      return std::nullopt;
    }
    if (matches_[base] != kUnknown) {
      return matches_[base];
    }
    int most = 0;
    for (std::uint32_t byte = 0; byte <= 0xFF; ++byte) {
      const std::uint32_t child = base ^ byte;
      if (unit(child).label() != byte) {
        continue;
      }
      const std::uint32_t next = child ^ unit(child).offset();
      if (unit(child).has_leaf() && (next >= size_ || !is_string(unit(next).value()))) {
        return std::nullopt;
      }
      const std::optional<int> below = matches_below(next, depth + 1);
      if (!below) {
        return std::nullopt;
      }
      most = std::max(most, *below + (unit(child).has_leaf() ? 1 : 0));
    }
    matches_[base] = most;
    return most <= kMaxMatches ? std::optional(most) : std::nullopt;
  }

  std::size_t size_;
  std::vector<std::uint32_t> units_;
  std::string_view strings_;
  std::vector<int> matches_;  ///< matches_below() of each base, or kUnknown
};

}  // namespace

bool is_safe_charsmap(std::string_view charsmap) {
  if (charsmap.empty()) {
    return true;
  }
  std::uint32_t trie_bytes = 0;
  if (charsmap.size() <= sizeof(trie_bytes)) {
    return false;
  }
  std::memcpy(&trie_bytes, charsmap.data(), sizeof(trie_bytes));
  charsmap.remove_prefix(sizeof(trie_bytes));
  if (trie_bytes >= charsmap.size() || trie_bytes % sizeof(std::uint32_t) != 0) {
    return false;
  }
  const std::string_view strings = charsmap.substr(trie_bytes);
  return strings.back() == '\0' && !find_invalid_utf8(strings) &&
         Trie(charsmap.substr(0, trie_bytes), strings).is_safe();
}

}  // namespace cartesian
