// Experts to home: the sum over a token's choices.

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "comm/exchange_transfer.h"
#include "kernels/permute.h"

namespace cartesian {

namespace {

constexpr std::size_t kBlockAlignment = 64;

/// Where token choices lie among the returned rows, whose blocks may have gaps between them.
Tensor positions_among(const Context& context, const ExchangePlan& plan,
                       const std::vector<MessageBlock>& blocks, std::size_t row_bytes) {
  const std::vector<std::int64_t> begins = send_begins(plan);
  std::vector<std::int64_t> shifts;
  for (std::size_t rank = 0; rank < blocks.size(); ++rank) {
    shifts.push_back(static_cast<std::int64_t>(blocks[rank].rows / row_bytes) - begins[rank]);
  }
  if (std::ranges::all_of(shifts, [](std::int64_t shift) { return shift == 0; })) {
    return plan.positions;
  }
  const Tensor shifted = context.scratch.tensor(DType::i32, plan.positions.shape());
  std::ranges::transform(
      plan.positions.span<std::int32_t>(), shifted.span<std::int32_t>().begin(),
      [&](std::int32_t position) {
        if (position < 0) {
          return position;
        }
        const auto after = std::ranges::upper_bound(begins, std::int64_t{position});
        return static_cast<std::int32_t>(position + shifts[as_index(after - begins.begin() - 1)]);
      });
  return shifted;
}

/// The scalars of a block's rows, which begin at row `begin` of the send order, to their choices.
void scatter_scalars(const ExchangePlan& plan, const std::byte* from, std::int64_t begin,
                     std::int64_t count, const Tensor& scalars) {
  const auto values = scalars.span<float>();
  for_each_choice(plan, begin, count, [&](std::size_t element, std::size_t i) {
    std::memcpy(&values[element], from + i * sizeof(float), sizeof(float));
  });
}

/// The scalars of slots of this rank to their own tokens, whose rows begin at `begin`.
void combine_own_scalars(const ExchangePlan& plan, const Tensor& padded_scalars, std::int64_t begin,
                         int me, const Tensor& scalars) {
  for_each_run(plan, me, [&](std::int64_t arrival, std::int64_t padded, std::int64_t count) {
    scatter_scalars(plan, row_address(padded_scalars, padded), begin + arrival, count, scalars);
  });
}

/// Copies that put the rows (and scalars) of a rank's runs into its block.
void collect_runs(const ExchangePlan& plan, int rank, const Rows& rows, bool scalars,
                  const MessageBlock& block, std::byte* buffer, std::vector<MemoryCopy>& copies) {
  const std::size_t row_bytes = row_bytes_of(rows.values);
  for_each_run(plan, rank, [&](std::int64_t arrival, std::int64_t padded, std::int64_t count) {
    copies.push_back({buffer + block.rows + as_index(arrival) * row_bytes,
                      row_address(rows.values, padded), as_index(count) * row_bytes});
    if (scalars) {
      copies.push_back({buffer + block.begin + as_index(arrival) * sizeof(float),
                        row_address(rows.scalars, padded), as_index(count) * sizeof(float)});
    }
  });
}

}  // namespace

TransferPtr Exchange::begin_combine(const Context& context, Arena& arena, const ExchangePlan& plan,
                                    const Rows& rows) {
  check_rows(rows, plan.padded_rows, plan.padded_rows);
  const bool scalars = rows.scalars.defined();
  const std::size_t row_bytes = row_bytes_of(rows.values);
  const int me = transport_.rank();
  auto transfer = std::make_unique<RowsTransfer>(RowsTransfer::Kind::combine);
  transfer->plan = &plan;
  transfer->result.values = arena.tensor(rows.values.dtype(), {plan.tokens, rows.values.cols()});
  if (scalars) {
    transfer->result.scalars = arena.zeros(DType::f32, {plan.tokens, plan.choices});
  }

  std::vector<std::int64_t> away = plan.recv_rows;
  away[as_index(me)] = 0;
  const std::vector<MessageBlock> sent_blocks =
      lay_out_messages({row_bytes, kBlockAlignment, scalars, me}, away);
  // Aligned to whole rows, so that the returned rows of all ranks are one tensor to sum from.
  transfer->received_blocks = lay_out_messages({row_bytes, row_bytes, scalars, me}, plan.send_rows);
  transfer->sent = stage(context, sent_blocks);
  transfer->received = stage(context, transfer->received_blocks);

  std::vector<MemoryCopy> copies;
  for (int rank = 0; rank < transport_.size(); ++rank) {
    if (rank != me) {
      collect_runs(plan, rank, rows, scalars, sent_blocks[as_index(rank)], transfer->sent.data(),
                   copies);
    }
  }
  run_copies(context, copies);
  post({"combine", plan.block}, sent_blocks, *transfer);

  copies.clear();
  collect_runs(plan, me, rows, false, transfer->received_blocks[as_index(me)],
               transfer->received.data(), copies);
  run_copies(context, copies);
  if (scalars) {
    combine_own_scalars(plan, rows.scalars, send_begins(plan)[as_index(me)], me,
                        transfer->result.scalars);
  }
  count_rows(context, plan.recv_rows);
  return transfer;
}

Rows Exchange::finish_combine(const Context& context, TransferPtr transfer) {
  auto* movement = dynamic_cast<RowsTransfer*>(transfer.get());
  check(movement != nullptr && movement->kind == RowsTransfer::Kind::combine,
        "finish_combine() finishes what begin_combine() began");
  const ExchangePlan& plan = *movement->plan;
  const Rows& result = movement->result;
  const std::vector<MessageBlock>& blocks = movement->received_blocks;
  movement->request->wait();

  const ArenaScope scope(context.scratch);
  const std::size_t row_bytes = row_bytes_of(result.values);
  const auto returned_rows = static_cast<std::int64_t>(blocks.back().end / row_bytes);
  const Tensor returned(movement->received.data(), result.values.dtype(),
                        {returned_rows, result.values.cols()});
  unpermute_rows(context, returned, positions_among(context, plan, blocks, row_bytes), Tensor(),
                 result.values);
  if (result.scalars.defined()) {
    const std::vector<std::int64_t> begins = send_begins(plan);
    for (std::size_t rank = 0; rank < blocks.size(); ++rank) {
      if (static_cast<int>(rank) != transport_.rank()) {
        scatter_scalars(plan, movement->received.data() + blocks[rank].begin, begins[rank],
                        plan.send_rows[rank], result.scalars);
      }
    }
  }
  return result;
}

}  // namespace cartesian
