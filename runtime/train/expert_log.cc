#include "runtime/train/expert_log.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "comm/collectives.h"
#include "runtime/train/count_pairs.h"

namespace cartesian {

namespace {

constexpr std::int64_t kRecordsOfARun = 200;
constexpr std::int64_t kRecordsPerPairs = 10;
// Of all layers' matrices together: 8 MiB to sum and some to write, twenty times a run.
constexpr std::int64_t kMostPairs = std::int64_t{1} << 20;

/// Sums of ones, as the integers that they are.
nlohmann::ordered_json counts(const double* first, std::int64_t size) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  std::for_each_n(first, size, [&](double n) { list.push_back(static_cast<std::int64_t>(n)); });
  return list;
}

/// [rows][columns] of `values`.
nlohmann::ordered_json matrix(const double* values, std::int64_t rows, std::int64_t columns) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (std::int64_t row = 0; row < rows; ++row) {
    list.push_back(counts(values + row * columns, columns));
  }
  return list;
}

}  // namespace

std::int64_t expert_log_interval(std::int64_t configured, std::int64_t steps) {
  return configured > 0 ? configured
                        : std::max<std::int64_t>(1, (steps + kRecordsOfARun - 1) / kRecordsOfARun);
}

ExpertLog::ExpertLog(const ModelConfig& model, std::int64_t every)
    : layers_(model.sub_layers > 0 ? model.moe_layers() : 0),
      groups_(model.sub_layers),
      experts_(model.num_experts),
      every_(every),
      loads_(static_cast<std::size_t>(layers_ * groups_ * experts_)) {
  const std::int64_t pairs = layers_ * experts_ * experts_;
  if (groups_ == 2 && pairs <= kMostPairs) {
    pairs_.resize(static_cast<std::size_t>(pairs));
  }
}

void ExpertLog::route(const RoutedChunk& chunk) {
  if (!pairs_.empty()) {
    count_pairs(chunk, static_cast<std::size_t>(experts_),
                pairs_.data() + chunk.layer * experts_ * experts_);
  }
}

void ExpertLog::add_step(std::span<const RouterLoad> loads) {
  ++steps_;
  ++pair_steps_;
  for (std::size_t i = 0; i < loads.size(); ++i) {
    double* sums = loads_.data() + static_cast<std::int64_t>(i) * experts_;
    std::ranges::transform(loads[i].counts, std::span(sums, loads[i].counts.size()), sums,
                           std::plus<>());
  }
}

std::optional<nlohmann::ordered_json> ExpertLog::take(const Context& context, Transport& transport,
                                                      std::int64_t step, bool now) {
  if (layers_ == 0 || steps_ == 0 || (!now && step % every_ != 0)) {
    return std::nullopt;
  }
  nlohmann::ordered_json record = take_loads(step);
  if (!pairs_.empty() && (now || step % (every_ * kRecordsPerPairs) == 0)) {
    take_pairs(context, transport, record);
  }
  return record;
}

nlohmann::ordered_json ExpertLog::take_loads(std::int64_t step) {
  nlohmann::ordered_json loads = nlohmann::ordered_json::array();
  for (std::int64_t layer = 0; layer < layers_; ++layer) {
    loads.push_back(matrix(loads_.data() + layer * groups_ * experts_, groups_, experts_));
  }
  nlohmann::ordered_json record = {{"step", step}, {"steps", steps_}, {"loads", std::move(loads)}};
  std::ranges::fill(loads_, 0.0);
  steps_ = 0;
  return record;
}

void ExpertLog::take_pairs(const Context& context, Transport& transport,
                           nlohmann::ordered_json& record) {
  std::vector<double> sums = pairs_;  // of integers: the same in any order
  all_reduce_sum(context, transport, Team::world(transport), std::span(sums), {"expert pairs"});
  nlohmann::ordered_json pairs = nlohmann::ordered_json::array();
  for (std::int64_t layer = 0; layer < layers_; ++layer) {
    pairs.push_back(matrix(sums.data() + layer * experts_ * experts_, experts_, experts_));
  }
  record["pair_steps"] = pair_steps_;
  record["pairs"] = std::move(pairs);
  std::ranges::fill(pairs_, 0.0);
  pair_steps_ = 0;
}

}  // namespace cartesian
