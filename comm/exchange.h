#pragma once
// Token exchange: moves rows from the ranks where tokens are routed to the ranks where their
// experts are, and on to where their sums are wanted, by the itineraries of base/itinerary.h. Every
// step is begun and finished, so that other work fits in between; steps of several chunks may be in
// flight, begun and finished in the same order on all ranks. Sums run in a fixed order (node, rank,
// expert), so results repeat bit for bit. Messages are staged in memory that the exchange keeps and
// reuses.
//
//   forward    plan, spread, hand_out, [experts], collect, return
//   backward   spread_gradients, hand_out, [experts], collect, return_gradients
//
// Counts what is sent, cartesian_exchange_rows_total{scope="self|intra|inter"}; growths of the
// staging memory, cartesian_exchange_staging_growths_total; and in the pivot flow tokens at their
// pivots, cartesian_exchange_pivots_total, those that are away from home, ..._pivots_away_total,
// and those with an expert of B on the pivot's node, ..._pivot_hits_total. Thread-safety: one
// exchange belongs to one rank's compute thread. Errors: CommError, as Transport's.

#include <memory>
#include <optional>
#include <span>

#include "base/context.h"
#include "base/placement.h"
#include "base/topology.h"
#include "comm/exchange_plan.h"

namespace cartesian {

/// What A's pivots are chosen by: what B is expected to choose, the placement's pivot scores, or
/// the gates alone.
enum class PivotBy : std::uint8_t { speculative, table, gate };

struct ExchangeOptions {
  Flow flow = Flow::pivot;
  PivotBy pivot = PivotBy::speculative;
};

/// What one rank contributes to one exchange.
struct TokenRouting {
  int block = 0;  ///< block index, for error messages
  int layer = 0;  ///< MoE layer, for the placement
  int group = 0;  ///< 0 = A, 1 = B
  std::span<const SourceToken> tokens;
  Tensor experts;         ///< [tokens, k] int32 chosen experts; negative entries are unused choices
  Tensor gates;           ///< [tokens, k] float32 what experts' outputs are multiplied by
  Tensor shared_weights;  ///< [tokens] float32; may be undefined
  /// [tokens, k of B] int32 what B is expected to choose; undefined if nothing is.
  Tensor expected;
  std::int64_t first_home_token = 0;  ///< of this rank's chunk
  std::int64_t home_tokens = 0;
};

/// What tokens chose, [tokens, k]: experts int32, gates float32.
struct Choices {
  Tensor experts;
  Tensor gates;
};

/// A step on its way; finish it with the matching call, once. Destroying it instead abandons it; do
/// so only when the job is ending.
class Transfer {
 public:
  virtual ~Transfer() = default;
  /// Whether the matching call would return without waiting.
  virtual bool done() = 0;
};
using TransferPtr = std::unique_ptr<Transfer>;

/// Rows [n, hidden] and, optionally, one float per row.
struct Rows {
  Tensor values;
  Tensor scalars;
};

/// Rows that are kept where they arrived.
struct HeldRows {
  std::vector<const std::byte*> rows;
  TransferPtr held;
};

class Exchange {
 public:
  /// All must outlive the exchange, and it its transfers. Collective: every rank makes its exchange
  /// with the same placement, topology and options.
  Exchange(Transport& transport, const Topology& topology, const Placement& placement,
           const ExchangeOptions& options = {});

  /// The placement that the exchange refers to has become another of its shape, on every rank.
  /// REQUIRES: no transfer is on its way, and no plan of before is used again.
  void placement_changed();

  /// With one sub-layer, or one node, `pivot` is `home`.
  Flow flow() const {
    return options_.flow == Flow::pivot &&
                   (placement_.shape().groups != 2 || topology_.nodes() == 1)
               ? Flow::home
               : options_.flow;
  }
  /// Whether A's routing is wanted with what B is expected to choose.
  bool wants_expected() const {
    return flow() == Flow::pivot && options_.pivot == PivotBy::speculative;
  }

  /// Chooses replicas, pivots and finishers, and posts how much goes to each rank. `routing` may be
  /// reused when this returns.
  TransferPtr begin_plan(const Context& context, const TokenRouting& routing);
  ExchangePlan finish_plan(TransferPtr transfer);

  /// Rows of the sources, [sources, hidden] float32 or bfloat16, to the rails. They may be reused
  /// when this returns. The plan must outlive the transfer, here and below.
  TransferPtr begin_spread(const Context& context, ExchangePlan& plan, const Tensor& rows);
  /// The rows that arrived, of plan.rails behind the sources, from `arena`.
  Tensor finish_spread(const Context& context, Arena& arena, ExchangePlan& plan,
                       TransferPtr transfer);

  /// Rows of the rails, [rails], null where a rail has no choices, to their experts. They must stay
  /// untouched until the step is finished.
  TransferPtr begin_hand_out(const Context& context, ExchangePlan& plan, DType dtype,
                             std::int64_t hidden, RowSources rows);
  /// values [padded_rows, hidden], zero in padding; scalars [padded_rows] the gates, the first time
  /// (zero in padding), else undefined. From `arena`.
  Rows finish_hand_out(const Context& context, Arena& arena, ExchangePlan& plan,
                       TransferPtr transfer);

  /// Rows of the experts, [padded_rows, hidden], summed by record, to the rails; scalars
  /// [padded_rows] or undefined. They must stay untouched until the step is finished.
  TransferPtr begin_collect(const Context& context, const ExchangePlan& plan, const Rows& rows);
  /// *rails[i] += the sum, or = where `fresh[i]`; null where a rail is not wanted. Returns the
  /// scalars by rail_choices, if there were any.
  std::vector<float> finish_collect(const Context& context, const ExchangePlan& plan,
                                    TransferPtr transfer, RowTargets rails,
                                    std::span<const std::uint8_t> fresh);

  /// Rows of the rails to their targets. They must stay untouched until the step is finished.
  TransferPtr begin_return(const Context& context, ExchangePlan& plan, DType dtype,
                           std::int64_t hidden, RowSources rails);
  /// *out[target] = the sum; a row of `rails` may be the same.
  void finish_return(const Context& context, ExchangePlan& plan, TransferPtr transfer,
                     RowTargets out);

  /// Rows of the targets, [targets, hidden], to the rails that had sent to them.
  TransferPtr begin_spread_gradients(const Context& context, const ExchangePlan& plan,
                                     const Tensor& rows);
  /// [rails], null where none is sent. Those of this rank's targets are rows of `rows` above.
  HeldRows finish_spread_gradients(const ExchangePlan& plan, TransferPtr transfer);

  /// Of the rails behind the sources, back to the sources: rows [those, hidden], scalars of
  /// rail_choices, and one for each rail of its shared weight.
  struct RailGradients {
    Tensor rows;
    std::span<const float> choices;
    std::span<const float> shared_weights;
  };
  TransferPtr begin_return_gradients(const Context& context, const ExchangePlan& plan,
                                     const RailGradients& gradients);
  /// rows [sources, hidden] += the sum of what arrives; gates [sources, k] and shared_weights
  /// [sources] become the whole gradients, this rank's own rails' included.
  struct SourceGradients {
    Tensor rows;
    Tensor gates;
    Tensor shared_weights;
  };
  void finish_return_gradients(const Context& context, const ExchangePlan& plan,
                               TransferPtr transfer, const SourceGradients& gradients);

  /// What B chose at this rank as a pivot, [targets of A's plan, k], to the tokens' homes, for
  /// those who want to know. `choices` may be reused when this returns.
  TransferPtr begin_report(const ExchangePlan& plan, const Choices& choices);
  /// [sources] of A's plan, from `arena`.
  Choices finish_report(Arena& arena, const ExchangePlan& plan, TransferPtr transfer);

  int rank() const { return transport_.rank(); }

 private:
  void begin_counting(ExchangePlan& plan);
  HopTransfer new_transfer(const Context& context, const HopSizes& sizes);
  void count_rows(const Context& context, std::span<const std::int64_t> rows_to_rank) const;

  Transport& transport_;
  const Topology& topology_;
  const Placement& placement_;
  ExchangeOptions options_;
  std::optional<Placement> unscored_;  ///< for choosing pivots by gate
  std::vector<int> ranks_by_node_;
  BufferPool staging_;
};

}  // namespace cartesian
