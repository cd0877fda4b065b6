#include "runtime/data/word_cache.h"

namespace cartesian {

void WordCache::encode(std::string_view word, std::vector<std::int32_t>& ids,
                       const Encode& encode) {
  if (word.size() > kMaxBytes) {
    encode(word, ids);
    return;
  }
  if (const auto found = words_.find(word); found != words_.end()) {
    const auto begin = ids_.begin() + found->second.first;
    ids.insert(ids.end(), begin, begin + found->second.count);
    return;
  }
  const std::size_t before = ids.size();
  encode(word, ids);
  if (words_.size() == kMaxWords) {
    words_.clear();
    ids_.clear();
  }
  words_.emplace(word, Range{static_cast<std::uint32_t>(ids_.size()),
                             static_cast<std::uint32_t>(ids.size() - before)});
  ids_.insert(ids_.end(), ids.begin() + static_cast<std::ptrdiff_t>(before), ids.end());
}

}  // namespace cartesian
