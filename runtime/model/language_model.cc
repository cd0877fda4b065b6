#include "runtime/model/language_model.h"

#include <algorithm>
#include <utility>

#include "kernels/elementwise.h"
#include "kernels/embedding.h"

namespace cartesian {

LanguageModel::LanguageModel(const ModelConfig& config, const Placement& placement, int rank,
                             ParameterStore& store)
    : config_(config),
      store_(store),
      embedding_(store.add({{.name = "model.embed_tokens.weight",
                             .shape = {config.vocab_size, config.hidden_size},
                             .init_std = config.initializer_range,
                             .decay = true}},
                           {config.vocab_size, config.hidden_size})),
      constants_(host_) {
  if (config.sub_layers > 0 && config.routing_kind() == RoutingKind::hash) {
    // Nothing gives it a gradient and it does not decay: it stays as it was drawn.
    hash_table_ = store.add({{.name = kHashTableName,
                              .shape = {config.vocab_size, config.num_experts},
                              .init_std = config.initializer_range}},
                            {config.vocab_size, config.num_experts});
  }
  int layer = 0;
  for (int block = 0; block < config.num_hidden_layers; ++block) {
    const std::int64_t begin = store.size();
    AttentionLayer attention(store, config, block);
    if (config.is_moe_block(block)) {
      blocks_.push_back(std::make_unique<Block>(
          Block{std::move(attention), MoeLayer(store, config, block, layer++), {}}));
    } else {
      blocks_.push_back(std::make_unique<Block>(
          Block{std::move(attention), DenseLayer(store, config, block), {}}));
    }
    blocks_.back()->dense = {begin, store.size()};
  }
  const std::int64_t begin = store.size();
  head_ = std::make_unique<LmHead>(store, config);
  head_dense_ = {begin, store.size()};
  add_experts(placement, rank);
  loads_.resize(static_cast<std::size_t>(config.moe_layers() * config.sub_layers));
  clear_loads();
}

void LanguageModel::add_experts(const Placement& placement, int rank) {
  for (const auto& block : blocks_) {
    if (auto* moe = std::get_if<MoeLayer>(&block->ffn)) {
      moe->add_experts(placement, rank);
    }
  }
  store_.allocate();
}

void LanguageModel::replace_experts(const Placement& placement, int rank) {
  store_.remove_experts();
  add_experts(placement, rank);
}

void LanguageModel::clear_loads() {
  for (RouterLoad& load : loads_) {
    load.counts.assign(static_cast<std::size_t>(config_.num_experts), 0);
    load.probabilities.assign(static_cast<std::size_t>(config_.num_experts), 0);
    load.z_loss = 0;
  }
}

float LanguageModel::move_biases(std::span<const RouterLoad> loads, std::span<const double> rates) {
  const auto groups = static_cast<std::size_t>(config_.sub_layers);
  float largest = 0;
  for (const auto& block : blocks_) {
    if (const auto* moe = std::get_if<MoeLayer>(&block->ffn)) {
      largest = std::max(largest, moe->move_biases(loads.first(groups), rates));
      loads = loads.subspan(groups);
    }
  }
  return largest;
}

void LanguageModel::pack(const Context& context, DType dtype) {
  for (const auto& block : blocks_) {
    block->attention.pack(context, dtype);
    std::visit([&](auto& ffn) { ffn.pack(context, dtype); }, block->ffn);
  }
  head_->pack(context, dtype);
}

int LanguageModel::layer_of(std::size_t block) const {
  return std::holds_alternative<MoeLayer>(blocks_[block]->ffn)
             ? static_cast<int>(block) / static_cast<int>(config_.expert_interval)
             : -1;
}

std::span<RouterLoad> LanguageModel::loads_of_block(std::size_t block) {
  const auto groups = static_cast<std::size_t>(config_.sub_layers);
  const std::size_t layer = block / static_cast<std::size_t>(config_.expert_interval);
  return std::span(loads_).subspan(layer * groups, groups);
}

RopeTable LanguageModel::rope_table(std::int64_t length) {
  if (!rope_ || rope_length_ != length) {
    constants_.reset();
    rope_ = make_rope_table(constants_, length, config_.head_dim(),
                            static_cast<float>(config_.rope_theta));
    rope_length_ = length;
  }
  return *rope_;
}

void LanguageModel::run_block(RankContext& rank, std::size_t index, const Batch& batch,
                              std::span<RouterLoad> loads, SavedBlock& saved) {
  const Block& block = *blocks_[index];
  const Tensor middle = rank.activations.tensor(rank.dtype, saved.x.shape());
  block.attention.forward(rank, rope_table(batch.length), {batch.length, batch.document_starts},
                          saved.x, middle, saved.attention);
  if (const auto* dense = std::get_if<DenseLayer>(&block.ffn)) {
    dense->forward(rank, middle, saved.out, saved.ffn.emplace<DenseLayer::Saved>());
  } else {
    std::get<MoeLayer>(block.ffn).forward(
        rank,
        {.x = middle,
         .ids = batch.ids,
         .hash_table = hash_table_ ? store_.weight(*hash_table_) : Tensor(),
         .first_token = batch.first_token},
        saved.out, saved.ffn.emplace<MoeLayer::Saved>(), loads);
  }
}

void LanguageModel::rerun_block(RankContext& rank, std::size_t index) {
  // The same arithmetic on the same input and weights: the same choices, bit for bit.
  const std::span<RouterLoad> counted = loads_of_block(index);
  std::vector<RouterLoad> discarded(counted.begin(), counted.end());
  const auto observer = std::exchange(rank.on_route, {});
  rank.activations.release(saved_[index].mark);
  run_block(rank, index, batch_, discarded, saved_[index]);
  rank.on_route = observer;
}

double LanguageModel::forward(RankContext& rank, const Batch& batch, float loss_scale) {
  batch_ = batch;
  const std::int64_t tokens = batch.ids.rows();
  const Shape shape{tokens, config_.hidden_size};
  rank.activations.reset();
  gradient_ = rank.activations.tensor(rank.dtype, shape);
  Tensor x = rank.activations.tensor(rank.dtype, shape);
  embedding_forward(rank.op, batch.ids, store_.weight(embedding_), x);
  saved_.resize(blocks_.size());
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    SavedBlock& saved = saved_[i];
    saved.x = x;
    saved.out = rank.activations.tensor(rank.dtype, shape);
    saved.mark = rank.activations.mark();
    run_block(rank, i, batch, loads_of_block(i), saved);
    if (rank.recompute) {
      rank.activations.release(saved.mark);
    }
    x = saved.out;
  }
  const ArenaScope scope(rank.activations);
  const Tensor losses = rank.activations.tensor(DType::f32, {tokens});
  head_->train(rank, x, batch.targets, loss_scale, losses, gradient_);
  double sum = 0;
  for (const float loss : losses.span<float>()) {
    sum += loss;
  }
  return sum;
}

void LanguageModel::backward(RankContext& rank, std::span<const Tensor> dprobability) {
  const auto groups = static_cast<std::size_t>(config_.sub_layers);
  const auto complete = [&](const ElementRange& dense, int layer) {
    if (rank.on_gradients) {
      rank.on_gradients(dense, layer);
    }
  };
  complete(head_dense_, -1);  // since the end of forward
  for (std::size_t i = blocks_.size(); i-- > 0;) {
    const Block& block = *blocks_[i];
    SavedBlock& saved = saved_[i];
    if (rank.recompute) {
      rerun_block(rank, i);
    }
    if (const auto* dense = std::get_if<DenseLayer>(&block.ffn)) {
      dense->backward(rank, std::get<DenseLayer::Saved>(saved.ffn), gradient_);
    } else {
      const std::size_t layer = i / static_cast<std::size_t>(config_.expert_interval);
      std::get<MoeLayer>(block.ffn).backward(rank, std::get<MoeLayer::Saved>(saved.ffn),
                                             dprobability.subspan(layer * groups, groups),
                                             gradient_);
    }
    block.attention.backward(rank, rope_table(batch_.length),
                             {batch_.length, batch_.document_starts}, saved.attention, gradient_);
    rank.activations.release(saved.mark);
    complete(block.dense, layer_of(i));
  }
  embedding_backward(rank.op, batch_.ids, gradient_, store_.gradient(embedding_));
}

Tensor LanguageModel::hidden_states(RankContext& rank, const Batch& batch) {
  const Shape shape{batch.ids.rows(), config_.hidden_size};
  rank.activations.reset();
  Tensor x = rank.activations.tensor(rank.dtype, shape);
  Tensor out = rank.activations.tensor(rank.dtype, shape);
  embedding_forward(rank.op, batch.ids, store_.weight(embedding_), x);
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    const ArenaScope scope(rank.activations);
    SavedBlock block;
    block.x = x;
    block.out = out;
    run_block(rank, i, batch, loads_of_block(i), block);
    std::swap(x, out);
  }
  return x;
}

void LanguageModel::evaluate(RankContext& rank, const Batch& batch, const Tensor& losses) {
  head_->evaluate(rank, hidden_states(rank, batch), batch.targets, losses);
}

void LanguageModel::predict(RankContext& rank, const Batch& batch, std::int64_t row,
                            const Tensor& logits) {
  const Tensor x = hidden_states(rank, batch);
  if (row >= 0) {
    head_->logits(rank, x.slice(row, 1), logits.reshape({1, config_.vocab_size}));
  }
}

}  // namespace cartesian
