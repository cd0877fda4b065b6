#include "runtime/train/generate.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "base/random.h"
#include "comm/collectives.h"

namespace cartesian {

namespace {

// Lengths are rounded up to this, so that matrix products see few distinct sizes; causal attention
// ignores what follows.
constexpr std::int64_t kLengthStep = 16;

/// Where each token's document begins, as Batch has it: after the last `end` before the token.
std::vector<std::int32_t> document_starts(std::span<const std::int32_t> ids, std::int32_t end) {
  std::vector<std::int32_t> starts;
  std::int32_t start = 0;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    starts.push_back(start);
    start = ids[i] == end ? static_cast<std::int32_t>(i + 1) : start;
  }
  return starts;
}

/// The next token's logits on rank 0, given the context there.
void predict_next(ModelRank& rank, std::span<const std::int32_t> context, std::int32_t end,
                  std::span<float> logits) {
  const auto used = static_cast<std::int64_t>(context.size());
  const std::int64_t length =
      std::min((used + kLengthStep - 1) / kLengthStep * kLengthStep,
               std::max(used, rank.model().config().max_position_embeddings));
  const bool home = rank.transport().rank() == 0;
  std::vector<std::int32_t> ids(home ? static_cast<std::size_t>(length) : 0, 0);
  if (home) {
    std::ranges::copy(context, ids.begin());
  }
  const Tensor tensor(ids.data(), {static_cast<std::int64_t>(ids.size())});
  Batch batch{.ids = tensor, .targets = tensor, .length = length};
  std::vector<std::int32_t> starts;
  if (rank.model().config().document_attention) {
    starts = document_starts(ids, end);
    batch.document_starts = Tensor(starts.data(), tensor.shape());
  }
  rank.model().predict(rank.context(), batch, home ? used - 1 : -1,
                       Tensor(logits.data(), {static_cast<std::int64_t>(logits.size())}));
}

}  // namespace

std::int32_t sample_token(std::span<const float> logits, double temperature, std::int64_t top_k,
                          double uniform) {
  std::vector<std::int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](std::int32_t a, std::int32_t b) {
    return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
  });
  if (temperature == 0) {
    return order.front();
  }
  if (top_k > 0 && top_k < static_cast<std::int64_t>(order.size())) {
    order.resize(static_cast<std::size_t>(top_k));
  }
  const double largest = logits[static_cast<std::size_t>(order.front())];
  std::vector<double> weights;
  for (const std::int32_t id : order) {
    weights.push_back(std::exp((logits[static_cast<std::size_t>(id)] - largest) / temperature));
  }
  double left = uniform * std::accumulate(weights.begin(), weights.end(), 0.0);
  for (std::size_t i = 0; i < order.size(); ++i) {
    left -= weights[i];
    if (left < 0) {
      return order[i];
    }
  }
  return order.back();
}

void generate(ModelRank& rank, std::span<const std::int32_t> prompt, std::int32_t end,
              const GenerateOptions& options, const std::function<void(std::int32_t)>& next) {
  const ModelConfig& config = rank.model().config();
  std::vector<std::int32_t> ids(prompt.begin(), prompt.end());
  std::vector<float> logits(static_cast<std::size_t>(config.vocab_size));
  const std::uint64_t key = random_key(options.seed, "generate");
  for (std::int64_t i = 0; i < options.tokens; ++i) {
    const std::size_t used =
        std::min(ids.size(), static_cast<std::size_t>(config.max_position_embeddings));
    predict_next(rank, std::span(ids).last(used), end, logits);
    std::int32_t id = sample_token(logits, options.temperature, options.top_k,
                                   random_uniform(key, static_cast<std::uint64_t>(i)));
    std::string bytes(reinterpret_cast<const char*>(&id), sizeof id);
    broadcast(rank.transport(), 0, bytes, {"generate"});
    std::memcpy(&id, bytes.data(), sizeof id);
    if (id == end) {
      return;
    }
    ids.push_back(id);
    next(id);
  }
}

}  // namespace cartesian
