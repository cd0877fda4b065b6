#pragma once
// What a run ran on: program, hosts, ranks. A start of a run leaves one record of it in
// environment.jsonl (docs/formats.md).

#include <cstdint>
#include <nlohmann/json_fwd.hpp>

#include "base/topology.h"
#include "runtime/job.h"

namespace cartesian {

struct RunStart {
  std::int64_t step = 0;  ///< steps done before
  int threads = 1;        ///< of this rank
};

/// On rank 0 the record of all ranks, elsewhere null. Collective.
nlohmann::ordered_json describe_environment(Job& job, const Topology& topology,
                                            const RunStart& start);

}  // namespace cartesian
