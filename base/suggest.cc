#include "base/suggest.h"

#include <algorithm>
#include <vector>

namespace cartesian {

std::size_t edit_distance(std::string_view a, std::string_view b) {
  // Rows of the usual table: distances of prefixes of `a` two, one and no characters shorter to
  // every prefix of `b`.
  std::vector<std::size_t> before(b.size() + 1);
  std::vector<std::size_t> above(b.size() + 1);
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) {
    row[j] = j;
  }
  for (std::size_t i = 1; i <= a.size(); ++i) {
    before.swap(above);
    above.swap(row);
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replace = above[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, replace});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before[j - 2] + 1);
      }
    }
  }
  return row[b.size()];
}

std::size_t max_suggestion_distance(std::string_view word) {
  return std::max<std::size_t>(1, word.size() / 3);
}

}  // namespace cartesian
