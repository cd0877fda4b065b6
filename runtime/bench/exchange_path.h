#pragma once
// ExchangePath: one way in which the tokens of an ExchangeCase travel through both sub-layers and
// back, as one rank's part of it: by the exchange (exchange_journey.h), or by MPI_Alltoallv
// (alltoallv_journey.h).

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/clock.h"
#include "base/tensor.h"

namespace cartesian {

/// Parts of a step's time. `dispatch`: from the choices to the rows at their experts; `collect`:
/// from there to the sums where the next sub-layer is routed, or at home. `experts`: the stand-ins,
/// forward. `backward` has all its steps in one.
enum class BenchPhase : std::uint8_t {
  dispatch_a,
  collect_a,
  dispatch_b,
  collect_b,
  experts,
  forward,
  backward,
  step
};
inline constexpr int kBenchPhases = 8;
using BenchSeconds = std::array<double, kBenchPhases>;

/// Adds its lifetime to a phase.
class BenchTimer {
 public:
  BenchTimer(const Clock& clock, BenchSeconds& seconds, BenchPhase phase)
      : clock_(clock), seconds_(seconds.at(static_cast<std::size_t>(phase))), start_(clock.now()) {}
  ~BenchTimer() { seconds_ += (clock_.now() - start_).count(); }
  BenchTimer(const BenchTimer&) = delete;
  BenchTimer& operator=(const BenchTimer&) = delete;

 private:
  const Clock& clock_;
  double& seconds_;
  Seconds start_;
};

/// The phase of a group's dispatch or collect.
inline BenchPhase dispatch_of(int group) {
  return group == 0 ? BenchPhase::dispatch_a : BenchPhase::dispatch_b;
}
inline BenchPhase collect_of(int group) {
  return group == 0 ? BenchPhase::collect_a : BenchPhase::collect_b;
}

/// What one rank has sent to others: inside its node, between nodes.
struct SentTraffic {
  std::array<double, 2> rows{};
  std::array<double, 2> bytes{};
};

class ExchangePath {
 public:
  virtual ~ExchangePath() = default;
  /// A new step: every token's row to its experts and back, sub-layer by sub-layer. Collective.
  virtual void forward(BenchSeconds& seconds) = 0;
  /// The gradients of what forward() made. Collective.
  virtual void backward() = 0;

  /// What forward() and backward() made at home, until the next step: rows of this rank's tokens,
  /// chunk by chunk.
  virtual std::vector<Tensor> outputs() const = 0;
  virtual std::vector<Tensor> input_gradients() const = 0;
  /// Calls visit(group, token, gradients of its gates) for the tokens that were routed here.
  using GateVisit = std::function<void(int, std::int64_t, std::span<const float>)>;
  virtual void for_each_gate_gradient(const GateVisit& visit) const = 0;
  /// Since the path was made.
  virtual SentTraffic traffic() const = 0;
  /// Of the last step what GroupMeter::bytes() says; empty if nothing does.
  virtual std::span<const double> sent_by_group() const { return {}; }
};

}  // namespace cartesian
