#include "runtime/bench/bench_rows.h"

#include "kernels/dispatch.h"

namespace cartesian {

BenchRows make_bench_rows(const ExchangeCase& measured, int rank, Arena& arena) {
  const BenchRows rows{arena.tensor(measured.dtype, {measured.tokens, measured.hidden}),
                       arena.tensor(measured.dtype, {measured.tokens, measured.hidden})};
  const std::int64_t first = measured.first_token(rank);
  dispatch_float(measured.dtype, [&]<class T>(T) {
    std::int64_t i = 0;
    for (std::int64_t token = first; token < first + measured.tokens; ++token) {
      for (std::int64_t column = 0; column < measured.hidden; ++column, ++i) {
        rows.x.data<T>()[i] = from_float<T>(token_value(token, column));
        rows.dout.data<T>()[i] = from_float<T>(gradient_value(token, column));
      }
    }
  });
  return rows;
}

}  // namespace cartesian
