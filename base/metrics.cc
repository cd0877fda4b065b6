#include "base/metrics.h"

#include <algorithm>

#include "base/check.h"

namespace cartesian {

Histogram::Histogram(std::vector<double> bounds)
    : bounds_(std::move(bounds)),
      buckets_(std::make_unique<std::atomic<std::int64_t>[]>(bounds_.size() + 1)) {
  check(std::is_sorted(bounds_.begin(), bounds_.end()), "histogram bounds ascend");
}

Histogram::Histogram(const Histogram& other) : Histogram(other.bounds_) {
  for (std::size_t i = 0; i <= bounds_.size(); ++i) {
    buckets_[i].store(other.bucket(i), std::memory_order_relaxed);
  }
  sum_.add(other.sum());
}

void Histogram::observe(double value) {
  const auto bound = std::lower_bound(bounds_.begin(), bounds_.end(), value);
  buckets_[static_cast<std::size_t>(bound - bounds_.begin())].fetch_add(1,
                                                                        std::memory_order_relaxed);
  sum_.add(value);
}

std::int64_t Histogram::bucket(std::size_t i) const {
  check(i <= bounds_.size(), "histogram bucket out of range");
  return buckets_[i].load(std::memory_order_relaxed);
}

std::int64_t Histogram::count() const {
  std::int64_t total = 0;
  for (std::size_t i = 0; i <= bounds_.size(); ++i) {
    total += bucket(i);
  }
  return total;
}

Counter& Metrics::counter(std::string_view name) {
  const std::lock_guard lock(mutex_);
  auto found = counters_.find(name);
  if (found == counters_.end()) {
    found = counters_.emplace(std::string(name), std::make_unique<Counter>()).first;
  }
  return *found->second;
}

Histogram& Metrics::histogram(std::string_view name, std::vector<double> bounds) {
  const std::lock_guard lock(mutex_);
  auto found = histograms_.find(name);
  if (found == histograms_.end()) {
    found = histograms_.emplace(std::string(name), std::make_unique<Histogram>(std::move(bounds)))
                .first;
  }
  return *found->second;
}

std::map<std::string, double> Metrics::counters() const {
  const std::lock_guard lock(mutex_);
  std::map<std::string, double> values;
  for (const auto& [name, counter] : counters_) {
    values.emplace(name, counter->value());
  }
  return values;
}

}  // namespace cartesian
