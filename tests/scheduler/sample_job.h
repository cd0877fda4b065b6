#pragma once
// A small job and its reports, for tests and benchmarks of the scheduler.

#include <cstdint>
#include <numeric>

#include "scheduler/control_messages.h"
#include "scheduler/step_report.h"

namespace cartesian::testing_job {

struct Experts {
  int layers = 2;
  int groups = 2;
  int experts = 3;
};

/// Nodes of two ranks.
inline JobShape shape(int ranks, const Experts& experts = {}) {
  JobShape shape;
  shape.ranks = ranks;
  for (int rank = 0; rank < ranks; ++rank) {
    shape.node_of_rank.push_back(rank / 2);
    shape.hosts.push_back("host" + std::to_string(rank / 2));
  }
  shape.layers = experts.layers;
  shape.groups = experts.groups;
  shape.experts = experts.experts;
  shape.phases = {"attention", "a_dispatch", "a_experts", "other"};
  return shape;
}

/// Every field has another value, which small integers make exact.
inline StepReport report(const JobShape& shape, int rank, std::int64_t step) {
  StepReport report;
  report.step = step;
  report.loss = 4.5;
  report.gradient_norm = 1.5;
  report.learning_rate = 0.125;
  report.checkpoint_step = 2;
  report.step_s = 1 + rank;
  report.wait_s = 0.25 * rank;
  report.phase_s.assign(shape.phases.size(), 0.125);
  report.tokens = 100 + rank;
  report.intra_bytes = 1000;
  report.inter_bytes = 2000;
  report.intra_rows = 10;
  report.inter_rows = 20;
  report.pivots = 8;
  report.pivot_hits = 6;
  report.loads.resize(shape.loads());
  std::iota(report.loads.begin(), report.loads.end(), 0.0F);
  report.waits_by_peer.assign(static_cast<std::size_t>(shape.ranks), 0.5);
  if (rank == 0) {
    report.plan_version = 3;
    report.plans_adopted = 4;
    report.plans_rejected = 5;
    report.plans_failed = 6;
    report.migrated_bytes = 7000;
  }
  return report;
}

inline Hello hello(int rank, int ranks, std::uint64_t instance = 7) {
  Hello hello;
  hello.rank = rank;
  hello.ranks = ranks;
  hello.instance = instance;
  hello.pid = 1000 + rank;
  hello.host = "host" + std::to_string(rank / 2);
  hello.nonce = random_nonce();
  return hello;
}

}  // namespace cartesian::testing_job
