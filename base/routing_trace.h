#pragma once
// RoutingTrace: which experts the tokens of some text visited, in every routed sub-layer, with
// their gates, and perhaps which tokens these were: what placement is planned from.
// docs/formats.md describes the file.

#include <cstdint>
#include <string>
#include <vector>

#include "base/file_system.h"

namespace cartesian {

struct RoutingTrace {
  struct SubLayer {
    int block = 0;  ///< index of its block, as in tensor names
    int group = 0;  ///< 0 = A (or the only one), 1 = B
    std::int64_t choices = 0;
    std::vector<std::int16_t> ids;  ///< [tokens, choices] larger gate first, -1: no further choice
    std::vector<float> gates;       ///< [tokens, choices]
    /// Of B: what its router would choose before A's output is added, at home; may be empty.
    std::vector<std::int16_t> speculative_ids;  ///< [tokens, choices]
  };

  std::int64_t tokens = 0;
  std::int64_t experts = 0;  ///< in each sub-layer
  std::int64_t hidden = 0;
  std::int64_t expert_width = 0;
  std::int64_t tokens_per_step = 0;  ///< of the training that this is a sample of; 0: not known
  std::string dtype = "float32";     ///< of the rows that travel, or "bfloat16"
  std::string model;                 ///< where the model came from, for people
  std::vector<SubLayer> sub_layers;  ///< by block, then group
  std::vector<std::int32_t> home;    ///< [tokens] rank; empty: costs are means over uniform homes

  /// The text, or none of it: ids below vocab_size, sequences of equal length one after the other.
  std::vector<std::int32_t> token_ids = {};  ///< [tokens]
  std::int64_t vocab_size = 0;               ///< 0: the text is not known
  std::int64_t sequence_length = 0;
  bool has_text() const { return vocab_size > 0; }
};

/// Durable, and whole or not there. Throws FileError.
void save_routing_trace(FileSystem& files, const Path& path, const RoutingTrace& trace);
/// Throws FileError, or FormatError naming file and tensor on anything missing, contradictory or
/// out of range.
RoutingTrace load_routing_trace(FileSystem& files, const Path& path);

}  // namespace cartesian
