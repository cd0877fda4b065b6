#pragma once
// Context: what every op and exchange is handed instead of globals. A plain bundle of references;
// it owns nothing.

#include "base/arena.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "base/tensor.h"

namespace cartesian {

/// A backend's stream; null on the CPU.
using StreamHandle = void*;

struct Context {
  Device device = Device::cpu;
  StreamHandle stream = nullptr;
  /// OpenMP threads an op may use, the caller's included; at least 1.
  int threads = 1;
  /// Scratch with stack discipline: an op releases what it took before it returns.
  Arena& scratch;
  Metrics& metrics;
  const Clock& clock;
};

}  // namespace cartesian
