#pragma once
// MetricFamilies: writes JobFigures as Prometheus families. Not a public header.

#include <prometheus/metric_family.h>

#include <string>
#include <vector>

#include "scheduler/job_metrics.h"

namespace cartesian {

using MetricLabels = std::vector<prometheus::ClientMetric::Label>;

/// For one reading. `figures` must outlive it. Not thread-safe.
class MetricFamilies {
 public:
  explicit MetricFamilies(const JobFigures& figures);
  std::vector<prometheus::MetricFamily> all(const ControlCounts& counts);

 private:
  void gauge(std::string name, std::string help);
  void counter(std::string name, std::string help);
  /// One more value of the family that was begun last.
  void put(double value, MetricLabels labels = {});
  /// A family with one value.
  void gauge(std::string name, std::string help, double value);
  void counter(std::string name, std::string help, double value);
  /// A counter with a value for each scope.
  void scoped(std::string name, std::string help, double intra, double inter);

  void put_job(const ControlCounts& counts);
  void put_latest();
  void put_time();
  void put_rank_totals();
  void put_straggler_ratios();
  void put_stragglers(const std::vector<Straggler>& named);
  void put_node_waits();
  void put_traffic();
  void put_colocation();
  void put_experts();
  /// A gauge for each layer and group that has a load.
  template <class Statistic>
  void put_statistic(std::string name, std::string help, Statistic statistic);
  void put_rank_imbalance();
  void put_expert_tokens();
  void put_planning();
  void put_control(const ControlCounts& counts);

  const JobFigures& figures_;
  const JobShape& shape_;
  const StepSums& window_;
  std::vector<prometheus::MetricFamily> families_;
};

}  // namespace cartesian
