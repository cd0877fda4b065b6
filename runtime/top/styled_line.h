#pragma once
// StyledLine: a line of a terminal's screen, built from the left.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cartesian {

enum class TextStyle : std::uint8_t { plain, bold, dim, bar, warning, alarm };

/// Holds only printable ASCII, block elements, middle dots and ellipses, all one column wide:
/// whatever else a text has, such as a terminal's commands, becomes '?'.
class StyledLine {
 public:
  StyledLine() = default;
  explicit StyledLine(std::string_view text, TextStyle style = TextStyle::plain) {
    add(text, style);
  }

  StyledLine& add(std::string_view text, TextStyle style = TextStyle::plain);
  StyledLine& add(const StyledLine& other);
  /// Blanks up to `width` columns; a longer line is cut there.
  StyledLine& fit(std::size_t width);
  /// A line longer than `width` columns is cut there.
  StyledLine& cut(std::size_t width);

  std::size_t width() const { return cells_.size(); }
  /// UTF-8, without trailing blanks; with a terminal's commands only if `colour`.
  std::string text(bool colour) const;

 private:
  struct Cell {
    std::string_view glyph = " ";  // of static storage
    TextStyle style = TextStyle::plain;
  };
  std::vector<Cell> cells_;
};

}  // namespace cartesian
