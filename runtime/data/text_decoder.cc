#include "runtime/data/text_decoder.h"

namespace cartesian {

namespace {

/// What SentencePiece shows for a byte that is no character by itself.
constexpr std::string_view kReplacement = "\uFFFD";

}  // namespace

std::string TextDecoder::add(std::int32_t id) {
  ids_.push_back(id);
  const std::size_t before = given_;
  std::string text = rest();
  if (!text.ends_with(kReplacement)) {
    return text;
  }
  given_ = before;  // the next byte may complete a character
  return {};
}

std::string TextDecoder::finish() { return rest(); }

std::string TextDecoder::rest() {
  const std::string text = tokenizer_.decode(ids_);
  std::string added = text.substr(std::min(given_, text.size()));
  given_ = text.size();
  return added;
}

}  // namespace cartesian
