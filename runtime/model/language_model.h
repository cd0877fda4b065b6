#pragma once
// LanguageModel: a LLaMA backbone whose blocks' FFNs are dense, MoE or CartesianMoE, on one rank of
// a job. The dense part is replicated and runs on the sequences whose home is this rank; experts
// live where the placement says. Every method that takes a RankContext is Collective: ranks without
// tokens call it with none. Not thread-safe.

#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "runtime/model/attention_layer.h"
#include "runtime/model/dense_layer.h"
#include "runtime/model/lm_head.h"
#include "runtime/model/moe_layer.h"

namespace cartesian {

/// The sequences of one micro-batch whose home is this rank; there may be none.
struct Batch {
  Tensor ids;      ///< [sequences * length] int32
  Tensor targets;  ///< [sequences * length] int32
  /// [sequences * length] int32, for attention that stops at document boundaries: where each
  /// token's document begins within its sequence. Undefined: attention reaches through the whole
  /// sequence.
  Tensor document_starts = {};
  std::int64_t length = 0;
  std::int64_t first_token = 0;  ///< index of row 0 within the global micro-batch
};

class LanguageModel {
 public:
  /// Lays out the parameters in `store`, which must outlive the model and is allocated here.
  LanguageModel(const ModelConfig& config, const Placement& placement, int rank,
                ParameterStore& store);

  const ModelConfig& config() const { return config_; }

  /// Lays out the experts of another placement instead of those that were there; the dense part
  /// stays. The experts' weights and moments are zero until they are set.
  void replace_experts(const Placement& placement, int rank);

  /// Converts the weights for computing; call after every change of them.
  void pack(const Context& context, DType dtype);

  /// Forward for training: saves what backward needs (with RankContext::recompute only every
  /// block's input), and already computes the head's gradients, for a loss of `loss_scale` times
  /// the sum over tokens. Returns the sum of this rank's token losses. Adds to loads().
  double forward(RankContext& rank, const Batch& batch, float loss_scale);
  /// dprobability[layer * groups + group] [experts]: the load-balancing loss's gradient. Frees the
  /// saved activations. Blocks that are run again are neither counted in loads() nor observed.
  void backward(RankContext& rank, std::span<const Tensor> dprobability);

  /// Forward without saving: losses [tokens] float32 receives each token's loss.
  void evaluate(RankContext& rank, const Batch& batch, const Tensor& losses);
  /// Forward without saving: logits [vocab_size] float32 of the row `row`. Collective; ranks
  /// without that row pass -1.
  void predict(RankContext& rank, const Batch& batch, std::int64_t row, const Tensor& logits);

  /// Moves the routers' biases (ModelConfig::router_bias), see Router::move_bias(). `loads` are a
  /// step's, of all ranks, like loads(); rates [sub-layer]. Returns the largest absolute bias.
  float move_biases(std::span<const RouterLoad> loads, std::span<const double> rates);

  /// Choices by [layer * groups + group], since the last clear_loads().
  std::span<RouterLoad> loads() { return loads_; }
  void clear_loads();

 private:
  struct Block {
    AttentionLayer attention;
    std::variant<DenseLayer, MoeLayer> ffn;
    ElementRange dense;  ///< of its parameters that are not experts'
  };
  struct SavedBlock {
    Tensor x;    ///< [tokens, hidden], the block's input
    Tensor out;  ///< likewise; only its memory is needed once the next block has run backward
    AttentionLayer::Saved attention;
    std::variant<DenseLayer::Saved, MoeLayer::Saved> ffn;
    Arena::Mark mark;  ///< where its other activations begin
  };

  void add_experts(const Placement& placement, int rank);
  /// saved.x to saved.out, with what backward needs in the rest of `saved`. Adds to `loads`
  /// [sub-layer].
  void run_block(RankContext& rank, std::size_t index, const Batch& batch,
                 std::span<RouterLoad> loads, SavedBlock& saved);
  /// Brings back what forward did not keep.
  void rerun_block(RankContext& rank, std::size_t index);
  /// All blocks, nothing saved; the result is in the arena.
  Tensor hidden_states(RankContext& rank, const Batch& batch);
  RopeTable rope_table(std::int64_t length);
  std::span<RouterLoad> loads_of_block(std::size_t block);
  /// -1: a dense one.
  int layer_of(std::size_t block) const;

  ModelConfig config_;
  ParameterStore& store_;
  ParameterRef embedding_;
  std::optional<ParameterRef> hash_table_;  ///< [vocab_size, experts]
  std::vector<std::unique_ptr<Block>> blocks_;
  std::unique_ptr<LmHead> head_;
  ElementRange head_dense_;
  std::vector<RouterLoad> loads_;

  HostAllocator host_;
  Arena constants_;
  std::optional<RopeTable> rope_;
  std::int64_t rope_length_ = 0;

  // Between forward and backward.
  Batch batch_;
  std::vector<SavedBlock> saved_;
  Tensor gradient_;  ///< [tokens, hidden] of the residual stream
};

}  // namespace cartesian
