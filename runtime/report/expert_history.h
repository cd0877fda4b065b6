#pragma once
// Expert history: experts.jsonl as heat maps, in bounded size: neighbouring intervals are added up,
// and if that is not enough, some layers are left out.

#include <cstddef>
#include <nlohmann/json_fwd.hpp>

#include "runtime/report/run_data.h"

namespace cartesian {

/// {"layers": [MoE layers shown], "layer_count", "groups", "experts",
///  "loads": {"step": [last step of each column], "from": [the step before its first],
///            "values": [layer][group][expert][column]: load over the mean load, in thousandths},
///  "pairs": [{"from", "step", "values": [layer][A][B]: share of all pairs, in ten-millionths}]}.
/// Null if there are no records. A load or share of 0 is exactly that: no token at all. Loads and
/// pairs have at most `numbers` numbers each.
nlohmann::ordered_json expert_history_json(const ExpertRecords& records, std::size_t numbers);

}  // namespace cartesian
