#include <algorithm>
#include <numeric>
#include <span>
#include <string_view>
#include <utility>

#include "scheduler/load_statistics.h"
#include "scheduler/metric_families_internal.h"

namespace cartesian {

namespace {

std::string number(auto value) { return std::to_string(value); }

std::string group_name(int group) { return group == 0 ? "A" : "B"; }

bool any_positive(std::span<const double> values) {
  return std::ranges::any_of(values, [](double value) { return value > 0; });
}

/// Part `i` of `values`, of `size`.
std::span<const double> part(const std::vector<double>& values, std::size_t i, std::size_t size) {
  return std::span(values).subspan(i * size, size);
}

}  // namespace

MetricFamilies::MetricFamilies(const JobFigures& figures)
    : figures_(figures), shape_(figures.shape), window_(figures.window) {}

std::vector<prometheus::MetricFamily> MetricFamilies::all(const ControlCounts& counts) {
  put_job(counts);
  put_latest();
  put_time();
  put_rank_totals();
  put_straggler_ratios();
  put_stragglers(counts.stragglers);
  put_node_waits();
  put_traffic();
  put_colocation();
  put_experts();
  put_rank_imbalance();
  put_expert_tokens();
  put_planning();
  put_control(counts);
  return std::move(families_);
}

void MetricFamilies::gauge(std::string name, std::string help) {
  families_.push_back({std::move(name), std::move(help), prometheus::MetricType::Gauge, {}});
}

void MetricFamilies::counter(std::string name, std::string help) {
  families_.push_back({std::move(name), std::move(help), prometheus::MetricType::Counter, {}});
}

void MetricFamilies::put(double value, MetricLabels labels) {
  prometheus::ClientMetric metric;
  metric.label = std::move(labels);
  metric.gauge.value = value;  // the family's type says which of them is read
  metric.counter.value = value;
  families_.back().metric.push_back(std::move(metric));
}

void MetricFamilies::gauge(std::string name, std::string help, double value) {
  gauge(std::move(name), std::move(help));
  put(value);
}

void MetricFamilies::counter(std::string name, std::string help, double value) {
  counter(std::move(name), std::move(help));
  put(value);
}

void MetricFamilies::scoped(std::string name, std::string help, double intra, double inter) {
  counter(std::move(name), std::move(help));
  put(intra, {{"scope", "intra"}});
  put(inter, {{"scope", "inter"}});
}

void MetricFamilies::put_job(const ControlCounts& counts) {
  gauge("cartesian_build_info", "1, with the version that runs.");
  put(1, {{"version", CARTESIAN_VERSION}});
  gauge("cartesian_ranks", "Ranks of the job.", shape_.ranks);
  const auto last = std::ranges::max_element(shape_.node_of_rank);
  gauge("cartesian_nodes", "Nodes of the job.", last == shape_.node_of_rank.end() ? 0 : *last + 1);
  gauge("cartesian_ranks_by_health", "Ranks in each state of health.");
  for (std::size_t i = 0; i < counts.ranks.size(); ++i) {
    put(counts.ranks[i], {{"health", std::string(name_of(static_cast<RankHealth>(i)))}});
  }
  gauge("cartesian_step", "The highest step that a rank has reported; -1 before the first.",
        static_cast<double>(figures_.step));
  gauge("cartesian_step_age_seconds",
        "Seconds since a rank first reported that step, or since the job began.",
        figures_.step_age.count());
}

void MetricFamilies::put_latest() {
  const auto& latest = figures_.latest;
  const auto known = [&](std::string name, std::string help, double value) {
    gauge(std::move(name), std::move(help));
    if (latest.known) {
      put(value);
    }
  };
  known("cartesian_loss", "Loss of the last step, nats a token.", latest.loss);
  known("cartesian_gradient_norm", "Norm of the last step's gradient, before clipping.",
        latest.gradient_norm);
  known("cartesian_learning_rate", "Learning rate of the last step.", latest.learning_rate);
  gauge("cartesian_last_checkpoint_step", "Step of the last checkpoint; -1 before the first.",
        static_cast<double>(latest.checkpoint_step));
}

void MetricFamilies::put_time() {
  const Histogram& steps = figures_.step_s;
  families_.push_back({"cartesian_step_seconds",
                       "Seconds that a rank's step took, one observation a rank and step.",
                       prometheus::MetricType::Histogram,
                       {}});
  prometheus::ClientMetric metric;
  std::uint64_t count = 0;
  for (std::size_t i = 0; i < steps.bounds().size(); ++i) {
    count += static_cast<std::uint64_t>(steps.bucket(i));
    metric.histogram.bucket.push_back({count, steps.bounds()[i]});
  }
  metric.histogram.sample_count = static_cast<std::uint64_t>(steps.count());
  metric.histogram.sample_sum = steps.sum();
  families_.back().metric.push_back(std::move(metric));

  counter("cartesian_phase_seconds_total", "Seconds in each phase of the step, over ranks.");
  for (std::size_t i = 0; i < shape_.phases.size(); ++i) {
    put(figures_.totals.phase_s[i], {{"phase", shape_.phases[i]}});
  }
  counter("cartesian_exposed_communication_seconds_total",
          "Seconds that ranks waited for messages instead of computing, over ranks.",
          std::accumulate(figures_.totals.wait_s.begin(), figures_.totals.wait_s.end(), 0.0));
}

void MetricFamilies::put_rank_totals() {
  const auto each = [&](auto value) {
    for (std::size_t rank = 0; rank < figures_.ranks.size(); ++rank) {
      if (figures_.ranks[rank].last_s >= 0) {
        put(value(rank), {{"rank", number(rank)}, {"host", shape_.hosts[rank]}});
      }
    }
  };
  gauge("cartesian_rank_step_seconds", "Seconds of the rank's last step.");
  each([&](std::size_t rank) { return figures_.ranks[rank].last_s; });
  counter("cartesian_rank_compute_seconds_total",
          "Seconds of the rank's steps in which it did not wait for others.");
  each([&](std::size_t rank) { return figures_.ranks[rank].compute_s; });
  counter("cartesian_rank_wait_seconds_total", "Seconds that the rank waited for others.");
  each([&](std::size_t rank) { return figures_.totals.wait_s[rank]; });
  counter("cartesian_rank_waited_for_seconds_total", "Seconds that others waited for the rank.");
  each([&](std::size_t rank) { return figures_.totals.waited_for_s[rank]; });
}

void MetricFamilies::put_straggler_ratios() {
  gauge("cartesian_rank_straggler_ratio",
        "The rank's seconds of computing a step over the median rank's, over the window.");
  std::vector<double> seconds;
  for (std::size_t rank = 0; rank < window_.reports.size(); ++rank) {
    if (window_.reports[rank] > 0) {
      seconds.push_back(window_.compute_s[rank] / window_.reports[rank]);
    }
  }
  const double middle = seconds.empty() ? 0 : median(seconds);
  if (middle <= 0) {
    return;
  }
  for (std::size_t rank = 0; rank < window_.reports.size(); ++rank) {
    if (window_.reports[rank] > 0) {
      put(window_.compute_s[rank] / window_.reports[rank] / middle,
          {{"rank", number(rank)}, {"host", shape_.hosts[rank]}});
    }
  }
}

void MetricFamilies::put_stragglers(const std::vector<Straggler>& named) {
  const auto is = [](Straggler::Kind kind) {
    return [kind](const Straggler& one) { return one.kind == kind; };
  };
  const auto put_kind = [&](Straggler::Kind kind, const char* label,
                            const std::vector<std::string>& hosts) {
    for (const Straggler& one : named) {
      if (one.kind == kind) {
        put(one.factor,
            {{label, number(one.number)}, {"host", hosts[static_cast<std::size_t>(one.number)]}});
      }
    }
  };
  gauge("cartesian_stragglers", "Ranks and links that are named as stragglers now.");
  put(static_cast<double>(std::ranges::count_if(named, is(Straggler::Kind::rank))),
      {{"kind", "rank"}});
  put(static_cast<double>(std::ranges::count_if(named, is(Straggler::Kind::link))),
      {{"kind", "link"}});
  gauge("cartesian_slow_rank_factor",
        "Of a rank that is named: its seconds of computing beside experts over the median rank's.");
  put_kind(Straggler::Kind::rank, "rank", shape_.hosts);
  gauge("cartesian_slow_link_factor",
        "Of a node whose link is named: waits at the link's ends over those elsewhere.");
  std::vector<std::string> hosts;  // by node
  for (std::size_t rank = 0; rank < shape_.node_of_rank.size(); ++rank) {
    const auto node = static_cast<std::size_t>(shape_.node_of_rank[rank]);
    hosts.resize(std::max(hosts.size(), node + 1), shape_.hosts[rank]);
  }
  put_kind(Straggler::Kind::link, "node", hosts);
}

void MetricFamilies::put_node_waits() {
  counter("cartesian_node_wait_seconds_total",
          "Seconds that ranks of a node waited for those of another or their own; of at most 16 "
          "nodes.");
  for (std::size_t i = 0; i < figures_.node_waits.size(); ++i) {
    put(figures_.node_waits[i], {{"node", number(i / figures_.paired_nodes)},
                                 {"awaited", number(i % figures_.paired_nodes)}});
  }
}

void MetricFamilies::put_traffic() {
  const auto& totals = figures_.totals;
  counter("cartesian_tokens_total", "Tokens trained on, over ranks.", totals.tokens);
  scoped("cartesian_transport_bytes_total", "Bytes that ranks sent, inside nodes and between them.",
         totals.intra_bytes, totals.inter_bytes);
  scoped("cartesian_exchange_rows_total",
         "Tokens' rows that the exchange sent, inside nodes and between them.", totals.intra_rows,
         totals.inter_rows);
  counter("cartesian_pivots_total", "Tokens that had a pivot, over MoE layers.", totals.pivots);
  counter("cartesian_pivot_hits_total",
          "Tokens whose pivot's node hosts an expert of their B choices, over MoE layers.",
          totals.pivot_hits);
  gauge("cartesian_internode_copies_per_token",
        "Rows between nodes a token and MoE layer, forward and backward, over the window.");
  if (window_.tokens > 0 && shape_.layers > 0) {
    put(window_.inter_rows / window_.tokens / shape_.layers);
  }
  gauge("cartesian_dedup_factor",
        "Rows between nodes that a flat exchange would send over those sent, over the window.");
  if (window_.placed_rows > 0) {
    put(window_.flat_rows / window_.placed_rows);
  }
}

void MetricFamilies::put_colocation() {
  gauge("cartesian_colocation_rate",
        "Share of a token's pairs of A and B choices whose experts share a node, over the window.");
  if (figures_.placement == nullptr || shape_.groups != 2 || window_.co_activation.empty()) {
    return;
  }
  const std::size_t size = shape_.co_activations() / static_cast<std::size_t>(shape_.layers);
  for (int layer = 0; layer < shape_.layers; ++layer) {
    const auto pairs = part(window_.co_activation, static_cast<std::size_t>(layer), size);
    if (any_positive(pairs)) {
      put(colocation_rate(*figures_.placement, shape_.node_of_rank, layer, pairs),
          {{"layer", number(layer)}});
    }
  }
}

template <class Statistic>
void MetricFamilies::put_statistic(std::string name, std::string help, Statistic statistic) {
  gauge(std::move(name), std::move(help));
  const auto experts = static_cast<std::size_t>(shape_.experts);
  for (int layer = 0; layer < shape_.layers; ++layer) {
    for (int group = 0; group < shape_.groups; ++group) {
      const int i = layer * shape_.groups + group;
      const auto loads = part(window_.loads, static_cast<std::size_t>(i), experts);
      if (any_positive(loads)) {
        put(statistic(loads), {{"layer", number(layer)}, {"group", group_name(group)}});
      }
    }
  }
}

void MetricFamilies::put_experts() {
  put_statistic("cartesian_expert_balancedness",
                "Mean over maximum of the experts' loads, over the window.", balancedness);
  put_statistic("cartesian_expert_imbalance",
                "Maximum over mean of the experts' loads, over the window.", imbalance);
  put_statistic("cartesian_expert_load_cv",
                "Standard deviation over mean of the experts' loads, over the window.",
                coefficient_of_variation);
  put_statistic("cartesian_expert_load_entropy",
                "Entropy of the experts' loads, 1 when all are alike, over the window.",
                normalized_entropy);
  put_statistic("cartesian_dead_experts", "Experts that no token chose in the window.",
                dead_experts);
}

void MetricFamilies::put_rank_imbalance() {
  gauge("cartesian_rank_load_imbalance",
        "Maximum over mean of the rows that the ranks' experts get, over the window.");
  if (figures_.placement == nullptr) {
    return;
  }
  const std::size_t size = shape_.loads() / static_cast<std::size_t>(std::max(1, shape_.layers));
  for (int layer = 0; layer < shape_.layers; ++layer) {
    const auto loads = part(window_.loads, static_cast<std::size_t>(layer), size);
    if (any_positive(loads)) {
      put(imbalance(rank_loads(*figures_.placement, layer, loads)), {{"layer", number(layer)}});
    }
  }
}

void MetricFamilies::put_expert_tokens() {
  counter("cartesian_expert_tokens_total",
          "Tokens that chose the expert; only layers that metrics.experts names.");
  for (const int layer : figures_.expert_layers) {
    for (int group = 0; group < shape_.groups; ++group) {
      for (int expert = 0; expert < shape_.experts; ++expert) {
        const int i = (layer * shape_.groups + group) * shape_.experts + expert;
        put(figures_.totals.loads[static_cast<std::size_t>(i)],
            {{"layer", number(layer)}, {"group", group_name(group)}, {"expert", number(expert)}});
      }
    }
  }
}

void MetricFamilies::put_planning() {
  const auto& latest = figures_.latest;
  gauge("cartesian_plan_version", "Version of the placement in force; 0 is the first.",
        static_cast<double>(latest.plan_version));
  counter("cartesian_plans_total", "Plans of placements by what became of them.");
  put(static_cast<double>(latest.plans_adopted), {{"outcome", "adopted"}});
  put(static_cast<double>(latest.plans_rejected), {{"outcome", "rejected"}});
  put(static_cast<double>(latest.plans_failed), {{"outcome", "failed"}});
  counter("cartesian_migrated_bytes_total", "Bytes of experts that were moved between ranks.",
          static_cast<double>(latest.migrated_bytes));
}

void MetricFamilies::put_control(const ControlCounts& counts) {
  counter("cartesian_reports_total", "Step reports that the coordinator took.",
          static_cast<double>(figures_.totals.reports));
  counter("cartesian_commands_total", "Commands that the coordinator gave to all ranks.",
          static_cast<double>(counts.commands));
  counter("cartesian_commands_late_total",
          "Commands that came to some rank when it had begun their step.",
          static_cast<double>(counts.commands_late));
  counter("cartesian_control_troubles_total",
          "Connections of the control plane that were refused or broke.",
          static_cast<double>(counts.troubles));
}

}  // namespace cartesian
