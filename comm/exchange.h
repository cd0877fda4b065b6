#pragma once
// Token exchange: moves rows from the ranks where tokens live to the ranks where their experts
// live, and back. A plan has two stages: counts (so that receivers can size their buffers), then
// rows; it is built in forward and reused in backward, whose movements are the same two, mirrored:
// dispatch copies a token's row to each of its choices, combine sums over the choices. Sums run in
// a fixed order (node, then expert id), so results repeat bit for bit.
//
// Received rows lie grouped by the rank's expert slots; each slot's rows are ordered by (source
// rank, source row), start at a multiple of kRowAlignment, and are padded with zero rows to the
// next multiple, so that GEMMs see few distinct sizes. Thread-safety: one exchange belongs to one
// rank's compute thread.

#include <cstdint>
#include <memory>
#include <vector>

#include "base/context.h"
#include "base/itinerary.h"
#include "base/placement.h"
#include "base/topology.h"
#include "comm/transport.h"

namespace cartesian {

/// What one rank contributes to one exchange.
struct TokenRouting {
  int block = 0;   ///< block index, for error messages
  int layer = 0;   ///< MoE layer, for the placement
  int group = 0;   ///< 0 = A, 1 = B
  Tensor experts;  ///< [tokens, k] int32 chosen experts; negative entries are unused choices
  std::int64_t first_token = 0;  ///< global index of the first row; rows are consecutive
};

/// Who sends which rows where. Valid while the arena it was built in is not reset.
struct ExchangePlan {
  int block = 0;
  std::int64_t tokens = 0;
  int choices = 0;
  /// Send side: rows in order of (destination rank, its slot, token). source_row[i] is the token of
  /// the i-th row sent.
  std::vector<std::int64_t> send_rows;  ///< [ranks] rows to each rank
  Tensor source_row;                    ///< [sent] int32
  Tensor source_choice;                 ///< [sent] int32 column of `experts`
  /// positions[t, j]: where in the send order token t's j-th choice lies, choices in summation
  /// order; -1 unused.
  Tensor positions;  ///< [tokens, k] int32
  /// Receive side.
  std::vector<std::int64_t> recv_rows;  ///< [ranks] rows from each rank
  std::vector<std::int64_t>
      slot_offsets;  ///< [slots + 1] padded row where each slot begins; the last is `padded_rows`
  std::vector<std::int64_t> slot_rows;  ///< [slots] real rows of each slot
  std::int64_t padded_rows = 0;
  Tensor destination_row;  ///< [received] int32 padded row of each received row, in order of
                           ///< arrival (source rank, send order)
};

/// A movement on its way; finish it with the matching call.
class Transfer;
struct TransferDeleter {
  void operator()(Transfer* transfer) const;
};
using TransferPtr = std::unique_ptr<Transfer, TransferDeleter>;

/// Rows [n, hidden] and, optionally, one float per row or per (token, choice).
struct Rows {
  Tensor values;
  Tensor scalars;
};

class Exchange {
 public:
  /// All must outlive the exchange. Collective: every rank makes its exchange with the same
  /// placement and topology.
  Exchange(Transport& transport, const Topology& topology, const Placement& placement);

  /// Stage one, begun: chooses replicas, orders the rows, and posts the counts. Tables come from
  /// `arena`.
  TransferPtr begin_plan(const Context& context, Arena& arena, const TokenRouting& routing);
  ExchangePlan finish_plan(const Context& context, TransferPtr transfer);

  /// Home to experts. `rows.values` [tokens, hidden] float32 or bfloat16; `rows.scalars` [tokens,
  /// k] float32 in the column order of `experts`, or undefined. Buffers come from `arena` and live
  /// as long as it does.
  TransferPtr begin_dispatch(const Context& context, Arena& arena, const ExchangePlan& plan,
                             const Rows& rows);
  /// values [padded_rows, hidden], scalars [padded_rows] float32 (zero in padding).
  Rows finish_dispatch(const Context& context, TransferPtr transfer);

  /// Experts to home: the sum over a token's choices. `rows.values` [padded_rows, hidden];
  /// `rows.scalars` [padded_rows] or undefined.
  TransferPtr begin_combine(const Context& context, Arena& arena, const ExchangePlan& plan,
                            const Rows& rows);
  /// values [tokens, hidden] (zero for a token without choices), scalars [tokens, k] (zero for
  /// unused choices).
  Rows finish_combine(const Context& context, TransferPtr transfer);

 private:
  Transport& transport_;
  const Topology& topology_;
  const Placement& placement_;
};

/// Rows are padded per slot to a multiple of this: 16 up to 512 rows, then a thirty-second of the
/// next power of two.
std::int64_t padded_row_count(std::int64_t rows);

}  // namespace cartesian
