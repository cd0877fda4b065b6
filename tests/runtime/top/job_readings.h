#pragma once
// Readings of a small job, for tests of what `cartesian top` shows.

#include <string>

#include "runtime/top/job_snapshot.h"
#include "runtime/top/metrics_text.h"

namespace cartesian {

/// Two ranks on two nodes; layer 0 with groups A and B of four experts, each rank's and expert's
/// counters known. After `steps` steps of 0.5 s each, at `at` seconds.
inline std::string job_text(int steps) {
  const auto times = [&](double each) { return std::to_string(each * steps); };
  return "cartesian_build_info{version=\"0.1.0\"} 1\n"
         "cartesian_ranks 2\n"
         "cartesian_nodes 2\n"
         "cartesian_ranks_by_health{health=\"alive\"} 2\n"
         "cartesian_ranks_by_health{health=\"dead\"} 0\n"
         "cartesian_step " +
         std::to_string(steps) +
         "\n"
         "cartesian_step_age_seconds 0.25\n"
         "cartesian_loss 3.25\n"
         "cartesian_gradient_norm 1.5\n"
         "cartesian_learning_rate 0.0003\n"
         "cartesian_last_checkpoint_step 10\n"
         "cartesian_step_seconds_bucket{le=\"+Inf\"} " +
         times(2) +
         "\n"
         "cartesian_step_seconds_count " +
         times(2) +
         "\n"
         "cartesian_step_seconds_sum " +
         times(1) +
         "\n"
         "cartesian_phase_seconds_total{phase=\"attention\"} " +
         times(0.25) +
         "\n"
         "cartesian_phase_seconds_total{phase=\"experts\"} " +
         times(0.5) +
         "\n"
         "cartesian_phase_seconds_total{phase=\"exchange\"} " +
         times(0.25) +
         "\n"
         "cartesian_phase_seconds_total{phase=\"other\"} 0\n"
         "cartesian_exposed_communication_seconds_total " +
         times(0.125) +
         "\n"
         "cartesian_rank_step_seconds{rank=\"0\",host=\"alpha\"} 0.5\n"
         "cartesian_rank_step_seconds{rank=\"1\",host=\"beta\"} 0.5\n"
         "cartesian_rank_compute_seconds_total{rank=\"0\",host=\"alpha\"} " +
         times(0.375) +
         "\n"
         "cartesian_rank_compute_seconds_total{rank=\"1\",host=\"beta\"} " +
         times(0.5) +
         "\n"
         "cartesian_rank_wait_seconds_total{rank=\"0\",host=\"alpha\"} " +
         times(0.125) +
         "\n"
         "cartesian_rank_wait_seconds_total{rank=\"1\",host=\"beta\"} 0\n"
         "cartesian_rank_waited_for_seconds_total{rank=\"0\",host=\"alpha\"} 0\n"
         "cartesian_rank_waited_for_seconds_total{rank=\"1\",host=\"beta\"} " +
         times(0.125) +
         "\n"
         "cartesian_rank_straggler_ratio{rank=\"0\",host=\"alpha\"} 0.86\n"
         "cartesian_rank_straggler_ratio{rank=\"1\",host=\"beta\"} 1.14\n"
         "cartesian_tokens_total " +
         times(1000) +
         "\n"
         "cartesian_transport_bytes_total{scope=\"intra\"} 0\n"
         "cartesian_transport_bytes_total{scope=\"inter\"} " +
         times(600000) +
         "\n"
         "cartesian_exchange_rows_total{scope=\"intra\"} " +
         times(100) +
         "\n"
         "cartesian_exchange_rows_total{scope=\"inter\"} " +
         times(2500) +
         "\n"
         "cartesian_pivots_total " +
         times(1000) +
         "\n"
         "cartesian_pivot_hits_total " +
         times(900) +
         "\n"
         "cartesian_internode_copies_per_token 2.5\n"
         "cartesian_dedup_factor 1.28\n"
         "cartesian_colocation_rate{layer=\"0\"} 0.5\n"
         "cartesian_expert_imbalance{layer=\"0\",group=\"A\"} 2\n"
         "cartesian_expert_imbalance{layer=\"0\",group=\"B\"} 1.25\n"
         "cartesian_dead_experts{layer=\"0\",group=\"A\"} 1\n"
         "cartesian_dead_experts{layer=\"0\",group=\"B\"} 0\n"
         "cartesian_rank_load_imbalance{layer=\"0\"} 1.02\n"
         "cartesian_expert_tokens_total{layer=\"0\",group=\"A\",expert=\"0\"} " +
         times(400) +
         "\n"
         "cartesian_expert_tokens_total{layer=\"0\",group=\"A\",expert=\"1\"} " +
         times(200) +
         "\n"
         "cartesian_expert_tokens_total{layer=\"0\",group=\"A\",expert=\"2\"} " +
         times(200) +
         "\n"
         "cartesian_expert_tokens_total{layer=\"0\",group=\"A\",expert=\"3\"} 0\n"
         "cartesian_plan_version 3\n"
         "cartesian_plans_total{outcome=\"adopted\"} 3\n"
         "cartesian_plans_total{outcome=\"rejected\"} 1\n"
         "cartesian_plans_total{outcome=\"failed\"} 0\n"
         "cartesian_migrated_bytes_total 1500000\n"
         "cartesian_reports_total " +
         times(2) + "\n";
}

inline JobSnapshot job_reading(int steps, double at) {
  JobSnapshot snapshot = take_snapshot(parse_metrics_text(job_text(steps), "text"), "text");
  snapshot.at = Seconds(at);
  snapshot.source = "one";
  return snapshot;
}

}  // namespace cartesian
