#include "runtime/train/routing_sample.h"

#include "base/random.h"

namespace cartesian {

RoutingSample::RoutingSample(const ModelConfig& config, DType dtype, std::uint64_t seed,
                             std::int64_t every)
    : rows_(config, dtype, /*speculative=*/false),
      key_(random_key(seed, "routing sample")),
      every_(static_cast<std::uint64_t>(every)) {}

void RoutingSample::route(const RoutedChunk& chunk, std::int64_t first_token) {
  std::vector<std::size_t> rows;
  std::vector<std::int64_t> numbers;
  for (std::size_t row = 0; row < chunk.tokens.size(); ++row) {
    const std::int64_t number = first_token + chunk.tokens[row].token;
    if (random_bits(key_, static_cast<std::uint64_t>(number)) % every_ == 0) {
      rows.push_back(row);
      numbers.push_back(number);
    }
  }
  rows_.add(chunk, rows, numbers);
}

}  // namespace cartesian
