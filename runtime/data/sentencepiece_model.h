#pragma once
// The parts of a SentencePiece model file (a serialized sentencepiece.ModelProto, see
// sentencepiece_model.proto in its source) that decide whether it can be used, and how. The library
// trusts what it loads: tables that lead out of bounds crash it. So files are checked here first.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cartesian {

struct SentencePieceModel {
  enum class Kind : std::uint8_t { unigram = 1, bpe = 2, word = 3, character = 4 };
  enum class PieceType : std::uint8_t {
    normal = 1,
    unknown = 2,
    control = 3,
    user_defined = 4,
    unused = 5,
    byte = 6
  };
  struct Piece {
    std::string_view text;
    float score = 0;
    PieceType type = PieceType::normal;
  };
  struct Normalizer {
    std::string_view charsmap;  ///< empty: characters stay as they are
    bool add_dummy_prefix = true;
    bool remove_extra_whitespaces = true;
    bool escape_whitespaces = true;
  };

  std::vector<Piece> pieces;  ///< by id
  Kind kind = Kind::unigram;
  bool byte_fallback = false;
  bool treat_whitespace_as_suffix = false;
  Normalizer normalizer;
  Normalizer denormalizer;
};

/// Reads and checks a model file; the result points into `bytes`. Throws FormatError, beginning
/// with `source`, if it is not one, or not one that the library can be trusted with.
SentencePieceModel parse_sentencepiece_model(std::string_view bytes, const std::string& source);

}  // namespace cartesian
