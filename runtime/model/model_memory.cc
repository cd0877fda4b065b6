#include "runtime/model/model_memory.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "base/error.h"
#include "runtime/model/lm_head.h"
#include "runtime/model/parameter_count.h"

namespace cartesian {

namespace {

constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;
constexpr double kBytesPerParameter = 4 * sizeof(float);  // weight, gradient, two moments

/// The same of the dense part, of whose moments a rank has one of `shards` shares.
double dense_bytes_per_parameter(int shards) {
  return kBytesPerParameter / 2 + kBytesPerParameter / 2 / shards;
}

/// This host's memory, or the limit of the control group (version 2) that a container or a batch
/// system has put this process in.
double usable_bytes() {
  const double host =
      static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGE_SIZE));
  double limit = 0;
  std::ifstream file("/sys/fs/cgroup/memory.max");
  return file >> limit && limit > 0 ? std::min(host, limit) : host;
}

}  // namespace

void require_memory(double bytes, int ranks_here, const char* what, const char* keys) {
  if (bytes * ranks_here > usable_bytes()) {
    throw ConfigError(
        fmt::format("{} needs at least {:.3g} GiB on each rank, but this host has {:.3g} GiB of "
                    "memory for {}; make {} smaller",
                    what, bytes / kGiB, usable_bytes() / kGiB,
                    ranks_here == 1 ? "one" : fmt::format("{} of them", ranks_here), keys));
  }
}

double least_model_bytes(const ModelConfig& config, int ranks, bool shard_optimizer) {
  const ParameterCount count = count_parameters(config);
  return dense_bytes_per_parameter(shard_optimizer ? ranks : 1) * (count.backbone + count.small) +
         kBytesPerParameter * count.experts / ranks;
}

void check_model_memory(const ModelConfig& config, int ranks, int ranks_here) {
  require_memory(least_model_bytes(config, ranks), ranks_here, "the model", "its sizes");
}

void check_training_memory(const ModelConfig& config, const TrainingNeeds& needs, int ranks_here) {
  const double model = least_model_bytes(config, needs.ranks, needs.shard_optimizer);
  require_memory(model, ranks_here, "the model", "its sizes");
  const double activations = needs.tokens / needs.ranks * static_cast<double>(config.hidden_size) *
                             static_cast<double>(config.num_hidden_layers) * sizeof(float);
  require_memory(model + activations, ranks_here, "a micro-batch",
                 "train.micro_batch_sequences or train.sequence_length");
}

RankMemory estimate_memory(const ModelConfig& config, const MemoryPlan& plan) {
  const ParameterCount count = count_parameters(config);
  const auto size = static_cast<double>(plan.element);
  const auto hidden = static_cast<double>(config.hidden_size);
  const auto blocks = static_cast<double>(config.num_hidden_layers);
  const auto moe_blocks = static_cast<double>(config.moe_layers());
  constexpr double kArenaSlack = 1.25;  // Arena::reset() keeps a quarter to spare
  const double local_experts = count.experts / plan.expert_ranks;

  // Elements a token leaves behind in each part of a block (SubLayer::Chunk and its like).
  const double attention = 6 * hidden;  // normed, q, k, v, attended, the sum
  const double dense = 2 * hidden + 2 * static_cast<double>(config.intermediate_size);
  double sub_layer = 0;
  double sub_layer_backward = 0;
  if (config.sub_layers > 0) {
    const auto width = static_cast<double>(config.expert_width());
    const auto choices = static_cast<double>(config.max_choices());
    const double copy_in_f32 = plan.element < sizeof(float) ? 2 * hidden : 0;
    sub_layer = 3 * hidden + copy_in_f32 + choices * (2 * hidden + 2 * width) +
                static_cast<double>(config.shared_ffns()) * 2 * width +
                (static_cast<double>(config.num_experts) + 6 * choices) * 4 / size;
    sub_layer_backward = 2 * hidden + choices * 2 * hidden;
    // A rail keeps x, norm and sum; where pivots move, sums are not made in place.
    sub_layer += plan.rails * 3 * hidden;
    sub_layer_backward += plan.rails * 2 * hidden;
    if (plan.rails > 0 && config.sub_layers == 2) {
      sub_layer += 2 * hidden;
    }
  }
  const auto sub_layers = static_cast<double>(config.sub_layers);
  const double moe = sub_layers * sub_layer + plan.jittered * hidden * 4 / size;
  double kept = blocks * attention + (blocks - moe_blocks) * dense + moe_blocks * moe;
  if (plan.recompute) {  // every block's input, and all of the block that is in backward
    kept = blocks * hidden + attention + std::max(blocks > moe_blocks ? dense : 0, moe);
  }
  const double per_token = 2 * hidden + kept + sub_layers * sub_layer_backward;
  const double scratch = 5 * hidden;  // attention's backward
  const double logits =
      std::min(plan.tokens, static_cast<double>(LmHead::slice_rows(config.vocab_size))) *
      static_cast<double>(config.vocab_size) * (plan.element < sizeof(float) ? 6 : 4);
  const double embedding = hidden * static_cast<double>(config.vocab_size);
  const double dense_part = count.backbone + count.small;
  const int shards = plan.shard_optimizer ? plan.ranks : 1;
  return {.parameters =
              dense_bytes_per_parameter(shards) * dense_part + kBytesPerParameter * local_experts,
          .packed = 2 * size * (count.backbone - embedding + local_experts),
          .activations = kArenaSlack * (plan.tokens * (per_token + scratch) * size + logits)};
}

}  // namespace cartesian
