#pragma once
// ExpertLog: what every expert had to do, and which experts of A and B the same tokens chose,
// summed over intervals of steps: the records of experts.jsonl (docs/formats.md). Not thread-safe.

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <vector>

#include "runtime/model/model_config.h"
#include "runtime/model/rank_context.h"
#include "runtime/model/router.h"

namespace cartesian {

/// Steps between records: `configured`, or if that is 0 so many that a run of `steps` has at most
/// 200.
std::int64_t expert_log_interval(std::int64_t configured, std::int64_t steps);

class ExpertLog {
 public:
  /// `every` steps make an interval.
  ExpertLog(const ModelConfig& model, std::int64_t every);

  /// Counts the pairs of one chunk of this rank's tokens.
  void route(const RoutedChunk& chunk);
  /// After a step: `loads` over all ranks, [layer * groups + group].
  void add_step(std::span<const RouterLoad> loads);

  /// The record of the interval that ends with step number `step`, the same on every rank and on
  /// any number of ranks; none before the interval's end unless `now`, and never of a model without
  /// experts. Pairs, whose matrices are larger, come in every tenth record, and whenever `now`.
  /// Collective.
  std::optional<nlohmann::ordered_json> take(const Context& context, Transport& transport,
                                             std::int64_t step, bool now);

 private:
  nlohmann::ordered_json take_loads(std::int64_t step);
  void take_pairs(const Context& context, Transport& transport, nlohmann::ordered_json& record);

  std::int64_t layers_;
  std::int64_t groups_;
  std::int64_t experts_;
  std::int64_t every_;
  std::int64_t steps_ = 0;       ///< in the interval so far
  std::int64_t pair_steps_ = 0;  ///< since the last record with pairs
  std::vector<double> loads_;    ///< [layer][group][expert], over all ranks
  std::vector<double> pairs_;    ///< [layer][A][B], of this rank's tokens; empty if not counted
};

}  // namespace cartesian
