#include "runtime/top/job_snapshot.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <string_view>

#include "base/error.h"

namespace cartesian {

namespace {

using Take = std::function<void(JobSnapshot&, const MetricSample&)>;

/// A label that counts from 0; nothing if it is none.
std::optional<int> index(const MetricSample& sample, std::string_view label) {
  const std::string_view text = sample.label(label);
  int value = -1;
  const char* end = text.data() + text.size();
  const auto [next, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || next != end || value < 0) {
    return std::nullopt;
  }
  return value;
}

Take one(std::optional<double> JobSnapshot::*member) {
  return [=](JobSnapshot& job, const MetricSample& sample) { job.*member = sample.value; };
}

Take counter(double JobSnapshot::*member) {
  return [=](JobSnapshot& job, const MetricSample& sample) { job.*member = sample.value; };
}

Take by_label(std::map<std::string, double> JobSnapshot::*member, const char* label) {
  return [=](JobSnapshot& job, const MetricSample& sample) {
    (job.*member)[std::string(sample.label(label))] = sample.value;
  };
}

Take by_layer(std::map<int, double> JobSnapshot::*member) {
  return [=](JobSnapshot& job, const MetricSample& sample) {
    if (const auto layer = index(sample, "layer")) {
      (job.*member)[*layer] = sample.value;
    }
  };
}

Take by_scope(double TrafficReading::*member) {
  return [=](JobSnapshot& job, const MetricSample& sample) {
    job.traffic[std::string(sample.label("scope"))].*member = sample.value;
  };
}

template <class Member>
Take by_rank(Member RankReading::*member) {
  return [=](JobSnapshot& job, const MetricSample& sample) {
    if (const auto rank = index(sample, "rank")) {
      RankReading& reading = job.by_rank[*rank];
      reading.host = sample.label("host");
      reading.*member = sample.value;
    }
  };
}

Take stragglers(std::map<int, StragglerReading> JobSnapshot::*member, const char* label) {
  return [=](JobSnapshot& job, const MetricSample& sample) {
    if (const auto number = index(sample, label)) {
      (job.*member)[*number] = {std::string(sample.label("host")), sample.value};
    }
  };
}

ExpertsReading* experts_of(JobSnapshot& job, const MetricSample& sample) {
  const auto layer = index(sample, "layer");
  return layer ? &job.experts[{*layer, std::string(sample.label("group"))}] : nullptr;
}

Take by_group(std::optional<double> ExpertsReading::*member) {
  return [=](JobSnapshot& job, const MetricSample& sample) {
    if (ExpertsReading* experts = experts_of(job, sample)) {
      experts->*member = sample.value;
    }
  };
}

void take_expert_tokens(JobSnapshot& job, const MetricSample& sample) {
  const auto expert = index(sample, "expert");
  ExpertsReading* experts = expert ? experts_of(job, sample) : nullptr;
  if (experts != nullptr) {
    experts->tokens[*expert] = sample.value;
  }
}

void take_version(JobSnapshot& job, const MetricSample& sample) {
  job.version = sample.label("version");
}

void take_phase(JobSnapshot& job, const MetricSample& sample) {
  job.phase_s.emplace_back(sample.label("phase"), sample.value);
}

/// By name of the sample.
const std::map<std::string, Take, std::less<>>& takers() {
  static const std::map<std::string, Take, std::less<>> kTakers = {
      {"cartesian_build_info", take_version},
      {"cartesian_ranks", one(&JobSnapshot::ranks)},
      {"cartesian_nodes", one(&JobSnapshot::nodes)},
      {"cartesian_ranks_by_health", by_label(&JobSnapshot::ranks_by_health, "health")},
      {"cartesian_step", one(&JobSnapshot::step)},
      {"cartesian_step_age_seconds", one(&JobSnapshot::step_age_s)},
      {"cartesian_loss", one(&JobSnapshot::loss)},
      {"cartesian_gradient_norm", one(&JobSnapshot::gradient_norm)},
      {"cartesian_learning_rate", one(&JobSnapshot::learning_rate)},
      {"cartesian_last_checkpoint_step", one(&JobSnapshot::checkpoint_step)},
      {"cartesian_internode_copies_per_token", one(&JobSnapshot::copies_per_token)},
      {"cartesian_dedup_factor", one(&JobSnapshot::dedup_factor)},
      {"cartesian_rank_load_imbalance", by_layer(&JobSnapshot::rank_imbalance)},
      {"cartesian_colocation_rate", by_layer(&JobSnapshot::colocation)},
      {"cartesian_reports_total", counter(&JobSnapshot::reports)},
      {"cartesian_tokens_total", counter(&JobSnapshot::tokens)},
      {"cartesian_step_seconds_count", counter(&JobSnapshot::step_count)},
      {"cartesian_step_seconds_sum", counter(&JobSnapshot::step_s)},
      {"cartesian_exposed_communication_seconds_total", counter(&JobSnapshot::exposed_s)},
      {"cartesian_pivots_total", counter(&JobSnapshot::pivots)},
      {"cartesian_pivot_hits_total", counter(&JobSnapshot::pivot_hits)},
      {"cartesian_phase_seconds_total", take_phase},
      {"cartesian_transport_bytes_total", by_scope(&TrafficReading::bytes)},
      {"cartesian_exchange_rows_total", by_scope(&TrafficReading::rows)},
      {"cartesian_plan_version", one(&JobSnapshot::plan_version)},
      {"cartesian_plans_total", by_label(&JobSnapshot::plans, "outcome")},
      {"cartesian_migrated_bytes_total", counter(&JobSnapshot::migrated_bytes)},
      {"cartesian_expert_imbalance", by_group(&ExpertsReading::imbalance)},
      {"cartesian_dead_experts", by_group(&ExpertsReading::dead)},
      {"cartesian_expert_tokens_total", take_expert_tokens},
      {"cartesian_slow_rank_factor", stragglers(&JobSnapshot::slow_ranks, "rank")},
      {"cartesian_slow_link_factor", stragglers(&JobSnapshot::slow_links, "node")},
      {"cartesian_rank_step_seconds", by_rank(&RankReading::step_s)},
      {"cartesian_rank_straggler_ratio", by_rank(&RankReading::straggler_ratio)},
      {"cartesian_rank_compute_seconds_total", by_rank(&RankReading::compute_s)},
      {"cartesian_rank_wait_seconds_total", by_rank(&RankReading::wait_s)},
      {"cartesian_rank_waited_for_seconds_total", by_rank(&RankReading::waited_for_s)},
  };
  return kTakers;
}

}  // namespace

JobSnapshot take_snapshot(std::span<const MetricSample> samples, const std::string& source) {
  JobSnapshot job;
  for (const MetricSample& sample : samples) {
    const auto found = takers().find(sample.name);
    if (found != takers().end() && std::isfinite(sample.value)) {
      found->second(job, sample);
    }
  }
  if (!job.step) {
    throw FormatError(fmt::format("{} has no cartesian_step: it is not of a training job", source));
  }
  return job;
}

bool began_anew(const JobSnapshot& last, const JobSnapshot& next) {
  const auto fell = [&](double JobSnapshot::*counter) { return next.*counter < last.*counter; };
  const auto scope_fell = [&](const auto& scope) {
    const auto now = next.traffic.find(scope.first);
    return now == next.traffic.end() || now->second.bytes < scope.second.bytes ||
           now->second.rows < scope.second.rows;
  };
  return next.source != last.source || next.step < last.step ||
         next.phase_s.size() != last.phase_s.size() || fell(&JobSnapshot::reports) ||
         fell(&JobSnapshot::tokens) || fell(&JobSnapshot::step_count) ||
         fell(&JobSnapshot::step_s) || fell(&JobSnapshot::exposed_s) ||
         std::ranges::any_of(last.traffic, scope_fell);
}

}  // namespace cartesian
