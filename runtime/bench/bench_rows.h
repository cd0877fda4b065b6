#pragma once
// The rows that a rank's tokens begin with, forward and backward.

#include "base/arena.h"
#include "base/tensor.h"
#include "runtime/bench/exchange_case.h"

namespace cartesian {

struct BenchRows {
  Tensor x;     ///< [tokens, hidden] token_value()
  Tensor dout;  ///< [tokens, hidden] gradient_value()
};

/// From `arena`.
BenchRows make_bench_rows(const ExchangeCase& measured, int rank, Arena& arena);

}  // namespace cartesian
