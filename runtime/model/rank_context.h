#pragma once
// RankContext: what the model's parts are handed: the op context, this rank's arena of saved
// activations, the exchange, and where time went. Owned by the trainer or evaluator of one rank;
// not thread-safe.

#include <array>
#include <functional>
#include <span>

#include "base/context.h"
#include "comm/exchange.h"
#include "runtime/model/parameters.h"
#include "runtime/model/phase_times.h"

namespace cartesian {

/// Leaves each token's most probable experts out, to see how a model bears routing errors.
struct RouterMask {
  std::int64_t experts = 0;  ///< so many of each token's, in every router
  int first_layer = 0;       ///< MoE layers before this one are left alone
};

/// What routers do in training only. Sub-layers by number: 0 = A, 1 = B.
struct RouterTraining {
  std::array<float, 2> jitter{};  ///< Jitter::epsilon of the router's input
  /// What the sum over tokens of log_sum_exp^2 counts in the training's loss: the z-loss.
  std::array<float, 2> z_loss{};
  std::uint64_t seed = 0;        ///< of the jitter
  std::int64_t first_token = 0;  ///< of this micro-batch, counted from the first step's first token
};

/// What an observer of routing sees of one chunk of this rank's tokens in one MoE layer.
struct RoutedChunk {
  int block = 0;
  int layer = 0;  ///< MoE layer
  std::span<const SourceToken> tokens;
  /// Of each sub-layer: experts [tokens, k] int32, -1: no further choice; gates [tokens, k].
  std::span<const Choices> choices;
  /// What B's router would have chosen before A's output was added, [tokens, k]; undefined unless
  /// it was asked, for pivots or by RankContext::speculate.
  Tensor speculative;
  /// [tokens] ranks where B was routed.
  std::span<const std::int32_t> pivots;
};

struct RankContext {
  Context& op;
  /// Saved activations and exchange buffers of one micro-batch; reset after its backward.
  Arena& activations;
  Exchange& exchange;
  PhaseTimes& times;
  DType dtype = DType::f32;  ///< of activations and payloads
  int chunks = 1;            ///< parts in which a rank's tokens pass a MoE layer
  /// Training keeps only every block's input and runs the block again when backward needs the rest.
  bool recompute = false;
  RouterMask mask;
  RouterTraining training;  ///< the default in evaluation
  /// Evaluates B's router on A's input, too, for on_route to see.
  bool speculate = false;
  /// Told in backward what gradients are complete: of dense elements, and of the experts of a MoE
  /// layer, -1 for none. They must stay untouched until the next forward. May be empty.
  std::function<void(const ElementRange& dense, int layer)> on_gradients;
  /// Sees every chunk's choices, once all sub-layers have chosen; may be empty, on all ranks or
  /// none.
  std::function<void(const RoutedChunk&)> on_route;
};

}  // namespace cartesian
