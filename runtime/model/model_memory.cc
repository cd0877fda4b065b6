#include "runtime/model/model_memory.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "base/error.h"

namespace cartesian {

namespace {

constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;
constexpr double kBytesPerParameter = 4 * sizeof(float);  // weight, gradient, two moments

/// This host's memory, or the limit of the control group (version 2) that a container or a batch
/// system has put this process in.
double usable_bytes() {
  const double host =
      static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGE_SIZE));
  double limit = 0;
  std::ifstream file("/sys/fs/cgroup/memory.max");
  return file >> limit && limit > 0 ? std::min(host, limit) : host;
}

void require_memory(double bytes, int ranks_here, const char* what, const char* keys) {
  if (bytes * ranks_here > usable_bytes()) {
    throw ConfigError(
        fmt::format("{} needs at least {:.3g} GiB on each rank, but this host has {:.3g} GiB of "
                    "memory for {}; make {} smaller",
                    what, bytes / kGiB, usable_bytes() / kGiB,
                    ranks_here == 1 ? "one" : fmt::format("{} of them", ranks_here), keys));
  }
}

}  // namespace

double least_model_bytes(const ModelConfig& config, int ranks) {
  const auto hidden = static_cast<double>(config.hidden_size);
  const auto blocks = static_cast<double>(config.num_hidden_layers);
  const auto sub_layers = static_cast<double>(config.moe_layers() * config.sub_layers);
  const auto experts = static_cast<double>(config.num_experts);
  const double dense_blocks = blocks - static_cast<double>(config.moe_layers());
  const double ffn = 3 * hidden * static_cast<double>(config.intermediate_size);
  const double expert = 3 * hidden * static_cast<double>(config.expert_width());

  const double embeddings = 2 * hidden * static_cast<double>(config.vocab_size);
  const double shared = embeddings + blocks * 4 * hidden * hidden + dense_blocks * ffn +
                        sub_layers * experts * hidden;  // routers
  return kBytesPerParameter * (shared + sub_layers * experts * expert / ranks);
}

void check_model_memory(const ModelConfig& config, int ranks, int ranks_here) {
  require_memory(least_model_bytes(config, ranks), ranks_here, "the model", "its sizes");
}

void check_training_memory(const ModelConfig& config, int ranks, int ranks_here, double tokens) {
  check_model_memory(config, ranks, ranks_here);
  const double activations = tokens / ranks * static_cast<double>(config.hidden_size) *
                             static_cast<double>(config.num_hidden_layers) * sizeof(float);
  require_memory(least_model_bytes(config, ranks) + activations, ranks_here, "a micro-batch",
                 "train.micro_batch_sequences or train.sequence_length");
}

}  // namespace cartesian
