#include "runtime/top/styled_line.h"

#include <array>

#include "runtime/data/utf8.h"

namespace cartesian {

namespace {

constexpr std::string_view kOthers =
    "▀▁▂▃▄▅▆▇█▉▊▋▌▍▎▏▐░▒▓"
    "·…";

/// All printable ASCII, in order.
constexpr std::string_view kAscii =
    " !\"#$%&'()*+,-./"
    "0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}"
    "~";

/// What stands for a character on the screen.
std::string_view glyph_of(std::string_view character) {
  if (character.size() == 1 && character.front() >= ' ' && character.front() <= '~') {
    return kAscii.substr(static_cast<std::size_t>(character.front() - ' '), 1);
  }
  const std::size_t at = character.size() > 1 ? kOthers.find(character) : std::string_view::npos;
  return at == std::string_view::npos ? "?" : kOthers.substr(at, character.size());
}

std::string_view command_of(TextStyle style) {
  constexpr std::array<std::string_view, 6> kCommands = {
      "\x1b[0m", "\x1b[0;1m", "\x1b[0;2m", "\x1b[0;36m", "\x1b[0;33m", "\x1b[0;1;31m"};
  return kCommands.at(static_cast<std::size_t>(style));
}

}  // namespace

StyledLine& StyledLine::add(std::string_view text, TextStyle style) {
  while (!text.empty()) {
    std::size_t size = 1;
    while (size < text.size() && is_utf8_continuation(text[size])) {
      ++size;
    }
    cells_.push_back({glyph_of(text.substr(0, size)), style});
    text.remove_prefix(size);
  }
  return *this;
}

StyledLine& StyledLine::add(const StyledLine& other) {
  cells_.insert(cells_.end(), other.cells_.begin(), other.cells_.end());
  return *this;
}

StyledLine& StyledLine::fit(std::size_t width) {
  cells_.resize(width, {" ", TextStyle::plain});
  return *this;
}

StyledLine& StyledLine::cut(std::size_t width) {
  if (cells_.size() > width) {
    cells_.resize(width);
  }
  return *this;
}

std::string StyledLine::text(bool colour) const {
  std::size_t end = cells_.size();
  while (end > 0 && cells_[end - 1].glyph == " ") {
    --end;
  }
  std::string text;
  TextStyle style = TextStyle::plain;
  for (std::size_t i = 0; i < end; ++i) {
    if (colour && cells_[i].style != style) {
      style = cells_[i].style;
      text += command_of(style);
    }
    text += cells_[i].glyph;
  }
  if (style != TextStyle::plain) {
    text += command_of(TextStyle::plain);
  }
  return text;
}

}  // namespace cartesian
