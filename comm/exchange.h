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
#include <span>
#include <vector>

#include "base/context.h"
#include "base/itinerary.h"
#include "base/placement.h"
#include "base/topology.h"
#include "comm/buffer_pool.h"
#include "comm/transport.h"

namespace cartesian {

struct MessageBlock;
struct RowsTransfer;

/// What one rank contributes to one exchange.
struct TokenRouting {
  int block = 0;   ///< block index, for error messages
  int layer = 0;   ///< MoE layer, for the placement
  int group = 0;   ///< 0 = A, 1 = B
  Tensor experts;  ///< [tokens, k] int32 chosen experts; negative entries are unused choices
  std::int64_t first_token = 0;  ///< global index of the first row; rows are consecutive
};

/// Who sends which rows where. Its tensors are valid while the arena it was built in is not reset.
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
  /// Receive side. Rows arrive in runs, one for each (source rank, slot), each consecutive among
  /// the rows of its source as well as among the padded rows.
  std::vector<std::int64_t> recv_rows;  ///< [ranks] rows from each rank
  std::vector<std::int64_t> run_rows;   ///< [ranks * slots] rows of each run
  std::vector<std::int64_t> run_begin;  ///< [ranks * slots] padded row where each run begins
  std::vector<std::int64_t>
      slot_offsets;  ///< [slots + 1] padded row where each slot begins; the last is `padded_rows`
  std::vector<std::int64_t> slot_rows;  ///< [slots] real rows of each slot
  std::int64_t padded_rows = 0;
};

/// A stage or movement on its way; finish it with the matching call, once. Destroying it instead
/// abandons it; do so only when the job is ending.
class Transfer {
 public:
  virtual ~Transfer() = default;
  /// Whether the matching call would return without waiting.
  virtual bool done() const = 0;
};
using TransferPtr = std::unique_ptr<Transfer>;

/// Rows [n, hidden] and, optionally, one float per row or per (token, choice).
struct Rows {
  Tensor values;
  Tensor scalars;
};

/// Several transfers may be in flight, begun and finished in the same order on all ranks. Messages
/// are staged in memory that the exchange keeps and reuses. Rows that stay on their rank are copied
/// straight. Counts rows by where they go, cartesian_exchange_rows_total{scope="self|intra|inter"},
/// and growths of its staging memory, cartesian_exchange_staging_growths_total.
class Exchange {
 public:
  /// All must outlive the exchange, and it its transfers. Collective: every rank makes its exchange
  /// with the same placement and topology.
  Exchange(Transport& transport, const Topology& topology, const Placement& placement);

  /// Stage one, begun: chooses replicas, orders the rows, and posts the counts. Tables come from
  /// `arena`. `routing.experts` may be reused when this returns.
  TransferPtr begin_plan(const Context& context, Arena& arena, const TokenRouting& routing);
  ExchangePlan finish_plan(const Context& context, TransferPtr transfer);

  /// Home to experts. `rows.values` [tokens, hidden] float32 or bfloat16; `rows.scalars` [tokens,
  /// k] float32 in the column order of `experts`, or undefined. Both may be reused when this
  /// returns; `arena` and `plan` must outlive the transfer. Results come from `arena` and live as
  /// long as it does.
  TransferPtr begin_dispatch(const Context& context, Arena& arena, const ExchangePlan& plan,
                             const Rows& rows);
  /// values [padded_rows, hidden], scalars [padded_rows] float32 or undefined; zero in padding.
  Rows finish_dispatch(const Context& context, TransferPtr transfer);

  /// Experts to home: the sum over a token's choices. `rows.values` [padded_rows, hidden];
  /// `rows.scalars` [padded_rows] or undefined. Lifetimes as in begin_dispatch().
  TransferPtr begin_combine(const Context& context, Arena& arena, const ExchangePlan& plan,
                            const Rows& rows);
  /// values [tokens, hidden] (zero for a token without choices), scalars [tokens, k] in the column
  /// order of `experts` (zero for unused choices), or undefined.
  Rows finish_combine(const Context& context, TransferPtr transfer);

 private:
  /// Staging memory for `blocks`.
  BufferPool::Lease stage(const Context& context, std::span<const MessageBlock> blocks);
  /// Posts the messages of a movement whose staging is filled.
  void post(CommPhase phase, std::span<const MessageBlock> sent_blocks, RowsTransfer& transfer);
  void count_rows(const Context& context, std::span<const std::int64_t> rows_to_rank);

  Transport& transport_;
  const Topology& topology_;
  const Placement& placement_;
  BufferPool staging_;
};

/// Rows are padded per slot to a multiple of this: 16 up to 512 rows, then a thirty-second of the
/// next power of two.
std::int64_t padded_row_count(std::int64_t rows);

}  // namespace cartesian
