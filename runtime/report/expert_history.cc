#include "runtime/report/expert_history.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

namespace cartesian {

namespace {

using nlohmann::ordered_json;

constexpr std::size_t kMostColumns = 120;
constexpr std::size_t kFewestColumns = 16;
constexpr std::size_t kMostSlices = 6;
constexpr double kLoadUnit = 1e3;
constexpr double kPairUnit = 1e7;

using Counts = std::vector<std::int64_t>;

/// A sum over neighbouring records.
struct Interval {
  std::int64_t from = 0;  ///< the step before its first
  std::int64_t step = 0;  ///< its last
  Counts counts;
};

/// `count` intervals of about equally many records; `counts_of` picks loads or pairs, `steps_of`
/// how many steps a record's counts are of.
template <class Of, class Steps>
std::vector<Interval> merge(const std::vector<const ExpertRecord*>& records, std::size_t count,
                            Of of, Steps steps_of) {
  std::vector<Interval> merged;
  count = std::min(count, records.size());
  for (std::size_t i = 0; i < count; ++i) {
    Interval interval;
    for (std::size_t r = records.size() * i / count; r < records.size() * (i + 1) / count; ++r) {
      const ExpertRecord& record = *records[r];
      const Counts& counts = of(record);
      if (interval.counts.empty()) {
        interval.from = record.step - steps_of(record);
        interval.counts.resize(counts.size());
      }
      interval.step = record.step;
      std::ranges::transform(interval.counts, counts, interval.counts.begin(), std::plus<>());
    }
    merged.push_back(std::move(interval));
  }
  return merged;
}

/// `part` of `whole` in units; something stays something, however little it is.
std::int64_t share(std::int64_t part, double whole, double unit) {
  const auto rounded = std::llround(static_cast<double>(part) * unit / whole);
  return part > 0 ? std::max<std::int64_t>(1, rounded) : 0;
}

std::int64_t sum(const std::int64_t* first, std::int64_t count) {
  return std::accumulate(first, first + count, std::int64_t{0});
}

/// Which layers: all, or every second, third, ... so that `size` numbers a layer fit.
std::vector<std::int64_t> shown_layers(std::int64_t layers, std::size_t size, std::size_t numbers) {
  std::vector<std::int64_t> shown;
  const std::size_t fit = std::max<std::size_t>(1, numbers / std::max<std::size_t>(1, size));
  const auto stride = static_cast<std::int64_t>((static_cast<std::size_t>(layers) + fit - 1) / fit);
  for (std::int64_t layer = 0; layer < layers; layer += stride) {
    shown.push_back(layer);
  }
  return shown;
}

ordered_json loads_json(const ExpertRecords& all, const std::vector<std::int64_t>& layers,
                        const std::vector<Interval>& columns) {
  ordered_json steps = ordered_json::array();
  ordered_json from = ordered_json::array();
  for (const Interval& column : columns) {
    steps.push_back(column.step);
    from.push_back(column.from);
  }
  ordered_json values = ordered_json::array();
  for (const std::int64_t layer : layers) {
    ordered_json groups = ordered_json::array();
    for (std::int64_t group = 0; group < all.groups; ++group) {
      const std::int64_t first = (layer * all.groups + group) * all.experts;
      ordered_json rows = ordered_json::array();
      for (std::int64_t expert = 0; expert < all.experts; ++expert) {
        ordered_json row = ordered_json::array();
        for (const Interval& column : columns) {
          const double total = static_cast<double>(
              std::max<std::int64_t>(1, sum(column.counts.data() + first, all.experts)));
          row.push_back(share(column.counts[static_cast<std::size_t>(first + expert)],
                              total / static_cast<double>(all.experts), kLoadUnit));
        }
        rows.push_back(std::move(row));
      }
      groups.push_back(std::move(rows));
    }
    values.push_back(std::move(groups));
  }
  return {{"step", std::move(steps)}, {"from", std::move(from)}, {"values", std::move(values)}};
}

ordered_json slice_json(const ExpertRecords& all, const std::vector<std::int64_t>& layers,
                        const Interval& slice) {
  const std::int64_t cells = all.experts * all.experts;
  ordered_json values = ordered_json::array();
  for (const std::int64_t layer : layers) {
    const std::int64_t* first = slice.counts.data() + layer * cells;
    const double total = static_cast<double>(std::max<std::int64_t>(1, sum(first, cells)));
    ordered_json rows = ordered_json::array();
    for (std::int64_t a = 0; a < all.experts; ++a) {
      ordered_json row = ordered_json::array();
      for (std::int64_t b = 0; b < all.experts; ++b) {
        row.push_back(share(first[a * all.experts + b], total, kPairUnit));
      }
      rows.push_back(std::move(row));
    }
    values.push_back(std::move(rows));
  }
  return {{"from", slice.from}, {"step", slice.step}, {"values", std::move(values)}};
}

}  // namespace

ordered_json expert_history_json(const ExpertRecords& all, std::size_t numbers) {
  if (all.records.empty()) {
    return nullptr;
  }
  std::vector<const ExpertRecord*> records;
  std::vector<const ExpertRecord*> with_pairs;
  for (const ExpertRecord& record : all.records) {
    records.push_back(&record);
    if (!record.pairs.empty()) {
      with_pairs.push_back(&record);
    }
  }
  const auto rows = static_cast<std::size_t>(all.groups * all.experts);
  const auto cells = static_cast<std::size_t>(with_pairs.empty() ? 0 : all.experts * all.experts);
  const auto layers = shown_layers(all.layers, std::max(rows * kFewestColumns, cells), numbers);
  const std::size_t columns =
      std::clamp(numbers / (rows * layers.size()), kFewestColumns, kMostColumns);
  ordered_json pairs = ordered_json::array();
  if (cells > 0) {
    const std::size_t slices =
        std::clamp(numbers / (cells * layers.size()), std::size_t{1}, kMostSlices);
    for (const Interval& slice : merge(
             with_pairs, slices, [](const ExpertRecord& r) -> const Counts& { return r.pairs; },
             [](const ExpertRecord& r) { return r.pair_steps; })) {
      pairs.push_back(slice_json(all, layers, slice));
    }
  }
  const auto intervals = merge(
      records, columns, [](const ExpertRecord& r) -> const Counts& { return r.loads; },
      [](const ExpertRecord& r) { return r.steps; });
  return {{"layers", layers},
          {"layer_count", all.layers},
          {"groups", all.groups},
          {"experts", all.experts},
          {"loads", loads_json(all, layers, intervals)},
          {"pairs", std::move(pairs)}};
}

}  // namespace cartesian
