#pragma once
// RoutingSample: what some of training's tokens chose, as a routing trace for the planner. Not
// thread-safe.

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/routing_trace.h"
#include "comm/transport.h"
#include "runtime/model/model_config.h"
#include "runtime/model/rank_context.h"

namespace cartesian {

class RoutingSample {
 public:
  /// One token in `every` is taken, by its number in training: the same ones on any number of
  /// ranks. `config` is copied.
  RoutingSample(const ModelConfig& config, DType dtype, std::uint64_t seed, std::int64_t every);

  /// Takes what it wants of a chunk; `first_token` as in RouterTraining.
  void route(const RoutedChunk& chunk, std::int64_t first_token);
  /// On rank 0 all ranks' tokens, by number, elsewhere an empty trace; then all are forgotten.
  /// Without homes, which tokens have anew in every step. Collective.
  RoutingTrace take(Transport& transport);

 private:
  /// Of one (block, group).
  struct Rows {
    std::int64_t choices = 0;
    std::vector<std::int64_t> tokens;
    std::vector<std::int16_t> ids;  ///< [tokens, choices]
    std::vector<float> gates;       ///< likewise
  };
  using SubLayers = std::map<std::pair<std::int64_t, std::int64_t>, Rows>;

  static std::string to_bytes(const SubLayers& sub_layers);
  static void append(std::string_view bytes, SubLayers& sub_layers);
  RoutingTrace to_trace(const SubLayers& sub_layers) const;

  ModelConfig config_;
  DType dtype_;
  std::uint64_t key_;
  std::uint64_t every_;
  SubLayers sub_layers_;
};

}  // namespace cartesian
