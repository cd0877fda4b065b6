#pragma once
// TextDecoder: the text of ids that come one by one. A token's text can depend on its neighbours: a
// first space that was added is left out, and a character may consist of several byte tokens.

#include <string>
#include <vector>

#include "runtime/data/tokenizer.h"

namespace cartesian {

/// Not thread-safe. `tokenizer` must outlive it.
class TextDecoder {
 public:
  explicit TextDecoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  /// What `id` adds to the text; nothing while a character is incomplete.
  std::string add(std::int32_t id);
  /// The rest: an incomplete character, as the tokenizer shows it.
  std::string finish();

 private:
  std::string rest();

  const Tokenizer& tokenizer_;
  std::vector<std::int32_t> ids_;
  std::size_t given_ = 0;  // bytes of the text of ids_
};

}  // namespace cartesian
