#pragma once
// WordCache: the ids of words that were encoded before. Words repeat, and looking one up costs a
// small part of encoding it.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace cartesian {

/// Not thread-safe. Bounded: when it is full it forgets everything.
class WordCache {
 public:
  static constexpr std::size_t kMaxWords = std::size_t{1} << 16;
  static constexpr std::size_t kMaxBytes = 32;  ///< of a word that is kept

  using Encode = std::function<void(std::string_view, std::vector<std::int32_t>&)>;

  /// Appends to `ids` what encode(word, ids) appends.
  void encode(std::string_view word, std::vector<std::int32_t>& ids, const Encode& encode);

 private:
  struct Hash {
    using is_transparent = void;  // NOLINT(readability-identifier-naming): the standard's name
    std::size_t operator()(std::string_view word) const {
      return std::hash<std::string_view>()(word);
    }
  };
  struct Range {
    std::uint32_t first = 0;
    std::uint32_t count = 0;
  };

  std::unordered_map<std::string, Range, Hash, std::equal_to<>> words_;
  std::vector<std::int32_t> ids_;  ///< of all words
};

}  // namespace cartesian
