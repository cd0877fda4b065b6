#pragma once
// A SentencePiece model's table of normalized characters ("precompiled_charsmap"): a double-array
// trie in darts-clone's layout (github.com/s-yata/darts-clone) whose values are offsets of
// NUL-terminated strings behind it.

#include <string_view>

namespace cartesian {

/// Whether no text can lead the library out of the table's bounds: it follows the trie without
/// looking. True for an empty one.
bool is_safe_charsmap(std::string_view charsmap);

}  // namespace cartesian
