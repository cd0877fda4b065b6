#pragma once
// MoeLayer: the FFN of a MoE block: one routed sub-layer, or two in sequence (CartesianMoE). A
// rank's tokens pass it in chunks, all of them stage by stage, so that one chunk's rows travel
// while another computes; every rank runs the same stages in the same order, whatever tokens it
// has.

#include <vector>

#include "runtime/model/sub_layer.h"

namespace cartesian {

class MoeLayer {
 public:
  struct Saved {
    /// [sub-layer][chunk].
    std::vector<std::vector<SubLayer::Chunk>> chunks;
  };

  MoeLayer(ParameterStore& store, const ModelConfig& config, int block, int layer);
  /// See SubLayer::add_experts().
  void add_experts(const Placement& placement, int rank);

  void pack(const Context& context, DType dtype);

  struct Input {
    Tensor x;                      ///< [tokens, hidden]; must stay valid until backward
    Tensor ids;                    ///< [tokens] int32 of the vocabulary; for routing by hash only
    Tensor hash_table;             ///< [vocab_size, experts] float32, likewise
    std::int64_t first_token = 0;  ///< global index of row 0
  };

  /// out [tokens, hidden]. Adds this call's choices to loads[sub-layer]. Collective.
  void forward(RankContext& rank, const Input& input, const Tensor& out, Saved& saved,
               std::span<RouterLoad> loads) const;
  /// dx holds the gradient of out and becomes that of x. dprobability [sub-layer]: [experts].
  /// Collective.
  void backward(RankContext& rank, Saved& saved, std::span<const Tensor> dprobability,
                const Tensor& dx) const;

  /// See Router::move_bias(); loads and rates [sub-layer].
  float move_biases(std::span<const RouterLoad> loads, std::span<const double> rates) const;

 private:
  using Chunks = std::vector<SubLayer::Chunk>;
  struct Passing;  ///< a chunk on its way forward

  void route(RankContext& rank, std::size_t sub_layer, SubLayer::Chunk& chunk,
             const ExchangePlan& a, Passing& passing, RouterLoad& load) const;
  /// Shows the observer a chunk's choices, at the tokens' homes wherever they were made.
  void observe(RankContext& rank, const Saved& saved, std::size_t chunk, Passing& passing) const;

  std::vector<SubLayer> sub_layers_;
};

}  // namespace cartesian
