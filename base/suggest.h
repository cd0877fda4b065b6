#pragma once
// "Did you mean": the known word nearest to a mistyped one.

#include <cstddef>
#include <string>
#include <string_view>

namespace cartesian {

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b` (optimal
/// string alignment distance). Takes a.size() * b.size() steps.
std::size_t edit_distance(std::string_view a, std::string_view b);

/// How far a suggestion for `word` may be from it: a third of its length, at least one.
std::size_t max_suggestion_distance(std::string_view word);

/// The nearest of `known` (a range of strings), the first among equals; empty if none is near.
template <class Range>
std::string nearest_word(std::string_view word, const Range& known) {
  std::size_t best = max_suggestion_distance(word) + 1;
  std::string nearest;
  for (const auto& candidate : known) {
    const std::size_t distance = edit_distance(word, candidate);
    if (distance < best) {
      best = distance;
      nearest = candidate;
    }
  }
  return nearest;
}

/// "; did you mean 'x'?" to end an error sentence with, or nothing.
template <class Range>
std::string did_you_mean(std::string_view word, const Range& known) {
  const std::string nearest = nearest_word(word, known);
  return nearest.empty() ? std::string() : "; did you mean '" + nearest + "'?";
}

}  // namespace cartesian
