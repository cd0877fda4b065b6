#pragma once
// Routing traces with planted structure, for experiments and tests: topics whose tokens choose the
// same few experts, experts that are liked more than others, drift from one text to the next,
// predictions of B that are wrong now and then, texts that keep to a topic.

#include <cstdint>
#include <limits>
#include <string>

#include "base/routing_trace.h"

namespace cartesian {

struct SyntheticTraceSpec {
  int layers = 1;
  int groups = 2;  ///< 1: conventional layers
  int experts = 8;
  int choices = 2;
  std::int64_t tokens = 200;
  /// Experts of each group that a topic has; 0: no topics, all choices are independent. Which ones
  /// a topic has is scrambled: expert e belongs to topic e modulo the number of topics.
  int cluster = 0;
  /// Share of the choices that stay in the token's topic, while it has experts left.
  double strength = 0.8;
  double skew = 0;        ///< within [0, 1]: how much likelier the first experts are
  double drift = 0;       ///< share of the experts that change topics from first to last token
  bool ragged = false;    ///< tokens make 1 to `choices` choices, as with top-p
  double prediction = 1;  ///< share of speculative choices that are right
  /// Token ids; 0: the trace has no text, and a token's topics in two layers are independent. With
  /// text a token has one topic, with probability `strength` its sequence's, and an id of it: id i
  /// belongs to topic i modulo the number of topics. Sequences fill the tokens.
  std::int64_t vocab_size = 0;
  std::int64_t sequence_length = 64;  ///< of the text
  /// What the trace says of its model and training.
  std::int64_t hidden = 64;
  std::int64_t expert_width = 128;
  std::int64_t tokens_per_step = 0;  ///< 0: not known
  std::string dtype = "float32";     ///< or "bfloat16"
};

/// Of all layers and groups together: some 20 GB.
inline constexpr std::int64_t kMostSyntheticChoices = std::numeric_limits<std::int32_t>::max();

/// The same for a seed on any machine. Throws ConfigError on a spec that cannot be, or of more than
/// kMostSyntheticChoices choices.
RoutingTrace make_synthetic_trace(const SyntheticTraceSpec& spec, std::uint64_t seed);

}  // namespace cartesian
