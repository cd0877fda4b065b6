#include "scheduler/step_report.h"

#include <fmt/format.h>

#include <cmath>

#include "scheduler/wire.h"

namespace cartesian {

namespace {

std::int64_t get_count(WireReader& reader, std::string_view field) {
  const auto value = reader.get<std::int64_t>(field);
  if (value < 0 || value > kMostCount) {
    reader.fail(field, "is negative or too large");
  }
  return value;
}

double get_finite(WireReader& reader, std::string_view field) {
  const auto value = reader.get<double>(field);
  if (!std::isfinite(value)) {
    reader.fail(field, "is not finite");
  }
  return value;
}

double get_amount(WireReader& reader, std::string_view field) {
  const auto value = reader.get<double>(field);
  if (!(std::isfinite(value) && value >= 0)) {
    reader.fail(field, "is negative or not finite");
  }
  return value;
}

template <class T>
std::vector<T> get_amounts(WireReader& reader, std::string_view field) {
  std::vector<T> values = reader.get_list<T>(field);
  for (const T value : values) {
    if (!(std::isfinite(value) && value >= 0)) {
      reader.fail(field, "has a value that is negative or not finite");
    }
  }
  return values;
}

}  // namespace

std::size_t JobShape::loads() const {
  return static_cast<std::size_t>(layers) * static_cast<std::size_t>(groups) *
         static_cast<std::size_t>(experts);
}

std::size_t JobShape::co_activations() const {
  return static_cast<std::size_t>(layers) * static_cast<std::size_t>(experts) *
         static_cast<std::size_t>(experts);
}

std::string StepReport::encode() const {
  WireWriter writer;
  writer.put(step);
  for (const double value : {loss, gradient_norm, learning_rate}) {
    writer.put(value);
  }
  writer.put(checkpoint_step);
  writer.put(step_s);
  writer.put(wait_s);
  writer.put_list(phase_s);
  for (const std::int64_t count :
       {tokens, intra_bytes, inter_bytes, intra_rows, inter_rows, pivots, pivot_hits}) {
    writer.put(count);
  }
  writer.put_list(loads);
  writer.put_list(co_activation);
  writer.put_list(waits_by_peer);
  for (const std::int64_t count :
       {plan_version, plans_adopted, plans_rejected, plans_failed, migrated_bytes}) {
    writer.put(count);
  }
  return writer.take();
}

StepReport StepReport::decode(std::string_view payload) {
  WireReader reader("step report", payload);
  StepReport report;
  report.step = get_count(reader, "step");
  report.loss = get_finite(reader, "loss");
  report.gradient_norm = get_amount(reader, "gradient_norm");
  report.learning_rate = get_amount(reader, "learning_rate");
  report.checkpoint_step = reader.get<std::int64_t>("checkpoint_step");
  if (report.checkpoint_step < -1 || report.checkpoint_step > kMostCount) {
    reader.fail("checkpoint_step", "is no step");
  }
  report.step_s = get_amount(reader, "step_s");
  report.wait_s = get_amount(reader, "wait_s");
  report.phase_s = get_amounts<double>(reader, "phase_s");
  report.tokens = get_count(reader, "tokens");
  report.intra_bytes = get_count(reader, "intra_bytes");
  report.inter_bytes = get_count(reader, "inter_bytes");
  report.intra_rows = get_count(reader, "intra_rows");
  report.inter_rows = get_count(reader, "inter_rows");
  report.pivots = get_count(reader, "pivots");
  report.pivot_hits = get_count(reader, "pivot_hits");
  report.loads = get_amounts<float>(reader, "loads");
  report.co_activation = get_amounts<float>(reader, "co_activation");
  report.waits_by_peer = get_amounts<double>(reader, "waits_by_peer");
  report.plan_version = get_count(reader, "plan_version");
  report.plans_adopted = get_count(reader, "plans_adopted");
  report.plans_rejected = get_count(reader, "plans_rejected");
  report.plans_failed = get_count(reader, "plans_failed");
  report.migrated_bytes = get_count(reader, "migrated_bytes");
  reader.end();
  return report;
}

std::string mismatch(const StepReport& report, const JobShape& shape) {
  const auto differs = [](std::string_view field, std::size_t has, std::size_t wants) {
    return fmt::format("{} has {} values where the job has {}", field, has, wants);
  };
  if (report.phase_s.size() != shape.phases.size()) {
    return differs("phase_s", report.phase_s.size(), shape.phases.size());
  }
  if (report.loads.size() != shape.loads()) {
    return differs("loads", report.loads.size(), shape.loads());
  }
  if (!report.co_activation.empty() && report.co_activation.size() != shape.co_activations()) {
    return differs("co_activation", report.co_activation.size(), shape.co_activations());
  }
  const auto ranks = static_cast<std::size_t>(shape.ranks);
  if (!report.waits_by_peer.empty() && report.waits_by_peer.size() != ranks) {
    return differs("waits_by_peer", report.waits_by_peer.size(), ranks);
  }
  return "";
}

}  // namespace cartesian
