#include "runtime/bench/exchange_measure.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "base/check.h"
#include "base/index.h"
#include "comm/collectives.h"

namespace cartesian {

namespace {

constexpr int kWarmUp = 2;

double& of(BenchSeconds& seconds, BenchPhase phase) {
  return seconds.at(static_cast<std::size_t>(phase));
}

double middle(std::vector<double> values) {
  check(!values.empty(), "something was measured");
  std::ranges::sort(values);
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

SentTraffic difference(const SentTraffic& end, const SentTraffic& begin) {
  SentTraffic sent;
  for (std::size_t scope = 0; scope < sent.rows.size(); ++scope) {
    sent.rows.at(scope) = end.rows.at(scope) - begin.rows.at(scope);
    sent.bytes.at(scope) = end.bytes.at(scope) - begin.bytes.at(scope);
  }
  return sent;
}

BenchSeconds time_step(Transport& transport, const Clock& clock, ExchangePath& path,
                       SentTraffic& sent) {
  BenchSeconds seconds{};
  barrier(transport, {"benchmark"});
  const SentTraffic before = path.traffic();  // knows barriers, too
  const Seconds start = clock.now();
  path.forward(seconds);
  const Seconds turn = clock.now();
  path.backward();
  const Seconds end = clock.now();
  of(seconds, BenchPhase::forward) = (turn - start).count();
  of(seconds, BenchPhase::backward) = (end - turn).count();
  of(seconds, BenchPhase::step) = (end - start).count();
  sent = difference(path.traffic(), before);
  return seconds;
}

void add(const SentTraffic& more, SentTraffic& sum) {
  for (std::size_t scope = 0; scope < sum.rows.size(); ++scope) {
    sum.rows.at(scope) += more.rows.at(scope);
    sum.bytes.at(scope) += more.bytes.at(scope);
  }
}

/// What one rank tells rank 0 of one path.
struct Told {
  std::vector<BenchSeconds> repetitions;
  SentTraffic sent;
  std::vector<double> sent_by_group;
};

PathReport gather_report(Transport& transport, const Told& mine) {
  const std::size_t bytes = mine.repetitions.size() * sizeof(BenchSeconds);
  const std::size_t groups_begin = bytes + sizeof(SentTraffic);
  std::string text(groups_begin, '\0');
  std::memcpy(text.data(), mine.repetitions.data(), bytes);
  std::memcpy(text.data() + bytes, &mine.sent, sizeof(SentTraffic));
  text.append(reinterpret_cast<const char*>(mine.sent_by_group.data()),
              mine.sent_by_group.size() * sizeof(double));
  PathReport report;
  for (const std::string& told : gather(transport, 0, text, {"benchmark"})) {
    report.repetitions.resize(mine.repetitions.size());
    for (std::size_t i = 0; i < mine.repetitions.size(); ++i) {
      BenchSeconds seconds{};
      std::memcpy(&seconds, told.data() + i * sizeof(seconds), sizeof(seconds));
      for (std::size_t phase = 0; phase < seconds.size(); ++phase) {
        report.repetitions[i].at(phase) =
            std::max(report.repetitions[i].at(phase), seconds.at(phase));
      }
    }
    std::memcpy(&report.sent.emplace_back(), told.data() + bytes, sizeof(SentTraffic));
    std::vector<double>& groups = report.sent_by_group.emplace_back();
    groups.resize((told.size() - groups_begin) / sizeof(double));
    std::copy_n(told.data() + groups_begin, told.size() - groups_begin,
                reinterpret_cast<char*>(groups.data()));
  }
  return report;
}

}  // namespace

double PathReport::median(BenchPhase phase) const {
  std::vector<double> values;
  for (BenchSeconds seconds : repetitions) {
    values.push_back(of(seconds, phase));
  }
  return middle(std::move(values));
}

double PathReport::least(BenchPhase phase) const {
  check(!repetitions.empty(), "something was measured");
  double least = median(phase);
  for (BenchSeconds seconds : repetitions) {
    least = std::min(least, of(seconds, phase));
  }
  return least;
}

SentTraffic PathReport::sum() const {
  SentTraffic sum;
  for (const SentTraffic& of_rank : sent) {
    add(of_rank, sum);
  }
  return sum;
}

SentTraffic PathReport::busiest_node(const Topology& topology) const {
  std::vector<SentTraffic> nodes(as_index(topology.nodes()));
  for (std::size_t rank = 0; rank < sent.size(); ++rank) {
    add(sent[rank], nodes[as_index(topology.node(static_cast<int>(rank)))]);
  }
  return *std::ranges::max_element(nodes, {},
                                   [](const SentTraffic& node) { return node.bytes[1]; });
}

double median_ratio(const PathReport& one, const PathReport& other, BenchPhase phase) {
  std::vector<double> ratios;
  for (std::size_t i = 0; i < one.repetitions.size(); ++i) {
    BenchSeconds ours = one.repetitions[i];
    BenchSeconds theirs = other.repetitions[i];
    ratios.push_back(of(ours, phase) / of(theirs, phase));
  }
  return middle(std::move(ratios));
}

std::vector<PathReport> measure_paths(Transport& transport, const Clock& clock,
                                      std::span<ExchangePath* const> paths, int repeats) {
  std::vector<Told> told(paths.size());
  for (int repeat = -kWarmUp; repeat < repeats; ++repeat) {
    for (std::size_t i = 0; i < paths.size(); ++i) {
      const BenchSeconds seconds = time_step(transport, clock, *paths[i], told[i].sent);
      if (repeat >= 0) {
        told[i].repetitions.push_back(seconds);
      }
    }
  }
  std::vector<PathReport> reports;
  for (std::size_t i = 0; i < paths.size(); ++i) {
    const std::span<const double> groups = paths[i]->sent_by_group();
    told[i].sent_by_group.assign(groups.begin(), groups.end());
    reports.push_back(gather_report(transport, told[i]));
  }
  return reports;
}

}  // namespace cartesian
