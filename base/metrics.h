#pragma once
// Metrics: named counters and histograms of one rank, written on the hot path, read by whoever
// reports or exports them.

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace cartesian {

/// A sum that only grows. Thread-safe, lock-free.
class Counter {
 public:
  void add(double amount) { value_.fetch_add(amount, std::memory_order_relaxed); }
  double value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> value_ = 0.0;
};

/// Counts of observations below fixed upper bounds, with their sum. Thread-safe, lock-free.
class Histogram {
 public:
  /// REQUIRES: `bounds` ascending.
  explicit Histogram(std::vector<double> bounds);
  /// What was observed until now.
  Histogram(const Histogram& other);
  Histogram& operator=(const Histogram&) = delete;
  void observe(double value);

  std::span<const double> bounds() const { return bounds_; }
  /// Observations in bucket i: (bounds[i-1], bounds[i]]; the last bucket, i == bounds().size(), is
  /// unbounded.
  std::int64_t bucket(std::size_t i) const;
  std::int64_t count() const;
  double sum() const { return sum_.value(); }

 private:
  std::vector<double> bounds_;
  std::unique_ptr<std::atomic<std::int64_t>[]> buckets_;
  Counter sum_;
};

/// Owns the metrics of one rank. Looking one up locks: keep the reference, which stays valid as
/// long as the registry.
class Metrics {
 public:
  /// `name` is a Prometheus name with its labels, e.g.
  /// cartesian_exchange_bytes_total{scope="inter"}.
  Counter& counter(std::string_view name);
  /// The bounds of the first call hold.
  Histogram& histogram(std::string_view name, std::vector<double> bounds);

  /// All counters, by name.
  std::map<std::string, double> counters() const;

 private:
  mutable std::mutex mutex_;
  std::map<std::string, std::unique_ptr<Counter>, std::less<>> counters_;      // guarded by mutex_
  std::map<std::string, std::unique_ptr<Histogram>, std::less<>> histograms_;  // guarded by mutex_
};

}  // namespace cartesian
