#include "runtime/data/sentencepiece_model.h"

#include <fmt/format.h>

#include <cmath>

#include "base/error.h"
#include "runtime/data/charsmap.h"
#include "runtime/data/protobuf_reader.h"
#include "runtime/data/utf8.h"

namespace cartesian {

namespace {

using Model = SentencePieceModel;
using Type = ProtobufField::Type;

// Field numbers of sentencepiece_model.proto.
constexpr std::uint32_t kPieces = 1;
constexpr std::uint32_t kTrainerSpec = 2;
constexpr std::uint32_t kNormalizerSpec = 3;
constexpr std::uint32_t kDenormalizerSpec = 5;
constexpr std::uint32_t kPieceText = 1;
constexpr std::uint32_t kPieceScore = 2;
constexpr std::uint32_t kPieceType = 3;
constexpr std::uint32_t kModelType = 3;
constexpr std::uint32_t kTreatWhitespaceAsSuffix = 24;
constexpr std::uint32_t kByteFallback = 35;
constexpr std::uint32_t kCharsmap = 2;
constexpr std::uint32_t kAddDummyPrefix = 3;
constexpr std::uint32_t kRemoveExtraWhitespaces = 4;
constexpr std::uint32_t kEscapeWhitespaces = 5;

class Reader {
 public:
  Reader(const std::string& source, Model& model) : source_(source), model_(model) {}

  void read(std::string_view bytes) {
    each(bytes, [this](const ProtobufField& field) {
      if (field.number == kPieces) {
        model_.pieces.push_back(read_piece(message(field)));
      } else if (field.number == kTrainerSpec) {
        read_trainer(message(field));
      } else if (field.number == kNormalizerSpec) {
        read_normalizer(message(field), model_.normalizer);
      } else if (field.number == kDenormalizerSpec) {
        read_normalizer(message(field), model_.denormalizer);
      }
    });
  }

 private:
  template <class Visit>
  void each(std::string_view message, const Visit& visit) {
    ProtobufReader reader(message, source_);
    for (ProtobufField field; reader.next(field);) {
      visit(field);
    }
  }

  [[noreturn]] void fail(std::string_view what) const {
    throw FormatError(fmt::format("{}: not a usable SentencePiece model: {}", source_, what));
  }

  const ProtobufField& expect(const ProtobufField& field, Type type) const {
    if (field.type != type) {
      fail(fmt::format("field {} has the wrong type", field.number));
    }
    return field;
  }
  std::string_view message(const ProtobufField& field) const {
    return expect(field, Type::bytes).bytes;
  }
  std::uint64_t integer(const ProtobufField& field) const {
    return expect(field, Type::varint).integer;
  }

  Model::Piece read_piece(std::string_view bytes) {
    const std::size_t id = model_.pieces.size();
    Model::Piece piece;
    each(bytes, [&](const ProtobufField& field) {
      if (field.number == kPieceText) {
        piece.text = message(field);
      } else if (field.number == kPieceScore) {
        piece.score = expect(field, Type::fixed32).as_float();
      } else if (field.number == kPieceType) {
        const std::uint64_t type = integer(field);
        if (type < 1 || type > 6) {
          fail(fmt::format("piece {} has the unknown type {}", id, type));
        }
        piece.type = static_cast<Model::PieceType>(type);
      }
    });
    if (piece.text.empty() || piece.text.find('\0') != std::string_view::npos ||
        find_invalid_utf8(piece.text)) {
      fail(fmt::format("piece {} is not a text", id));
    }
    if (!std::isfinite(piece.score)) {
      fail(fmt::format("the score of piece {} is not a number", id));
    }
    return piece;
  }

  void read_trainer(std::string_view bytes) {
    each(bytes, [this](const ProtobufField& field) {
      if (field.number == kModelType) {
        const std::uint64_t kind = integer(field);
        if (kind < 1 || kind > 4) {
          fail(fmt::format("model type {} is not known", kind));
        }
        model_.kind = static_cast<Model::Kind>(kind);
      } else if (field.number == kTreatWhitespaceAsSuffix) {
        model_.treat_whitespace_as_suffix = integer(field) != 0;
      } else if (field.number == kByteFallback) {
        model_.byte_fallback = integer(field) != 0;
      }
    });
  }

  void read_normalizer(std::string_view bytes, Model::Normalizer& normalizer) {
    each(bytes, [&](const ProtobufField& field) {
      if (field.number == kCharsmap) {
        normalizer.charsmap = message(field);
      } else if (field.number == kAddDummyPrefix) {
        normalizer.add_dummy_prefix = integer(field) != 0;
      } else if (field.number == kRemoveExtraWhitespaces) {
        normalizer.remove_extra_whitespaces = integer(field) != 0;
      } else if (field.number == kEscapeWhitespaces) {
        normalizer.escape_whitespaces = integer(field) != 0;
      }
    });
    if (!is_safe_charsmap(normalizer.charsmap)) {
      fail("its table of normalized characters is damaged");
    }
  }

  const std::string& source_;
  Model& model_;
};

}  // namespace

SentencePieceModel parse_sentencepiece_model(std::string_view bytes, const std::string& source) {
  SentencePieceModel model;
  Reader(source, model).read(bytes);
  if (model.pieces.empty()) {
    throw FormatError(fmt::format("{}: not a SentencePiece model: it has no pieces", source));
  }
  return model;
}

}  // namespace cartesian
