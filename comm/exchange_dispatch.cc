// Home to experts: a token's row goes to each of its choices.

#include <cstring>

#include "base/check.h"
#include "comm/exchange_transfer.h"
#include "kernels/permute.h"

namespace cartesian {

namespace {

/// Rows in staging buffers begin on cache lines.
constexpr std::size_t kBlockAlignment = 64;

/// The scalars of rows [begin, begin + count) of the send order, written to `to`, which need not be
/// aligned.
void gather_scalars(const ExchangePlan& plan, const Tensor& scalars, std::int64_t begin,
                    std::int64_t count, std::byte* to) {
  const auto values = scalars.span<float>();
  for_each_choice(plan, begin, count, [&](std::size_t element, std::size_t i) {
    std::memcpy(to + i * sizeof(float), &values[element], sizeof(float));
  });
}

/// Rows for slots of their own rank, which begin at row `begin` of the send order.
void dispatch_to_self(const Context& context, const Rows& rows, std::int64_t begin, int me,
                      const ExchangePlan& plan, const Rows& to) {
  for_each_run(plan, me, [&](std::int64_t arrival, std::int64_t padded, std::int64_t count) {
    permute_rows(context, rows.values, plan.source_row.slice(begin + arrival, count),
                 to.values.slice(padded, count));
    if (to.scalars.defined()) {
      gather_scalars(plan, rows.scalars, begin + arrival, count, row_address(to.scalars, padded));
    }
  });
}

void zero_padding(const ExchangePlan& plan, const Tensor& rows) {
  for (std::size_t slot = 0; slot < plan.slot_rows.size(); ++slot) {
    const std::int64_t begin = plan.slot_offsets[slot] + plan.slot_rows[slot];
    const std::int64_t count = plan.slot_offsets[slot + 1] - begin;
    std::memset(row_address(rows, begin), 0, as_index(count) * row_bytes_of(rows));
  }
}

}  // namespace

TransferPtr Exchange::begin_dispatch(const Context& context, Arena& arena, const ExchangePlan& plan,
                                     const Rows& rows) {
  check_rows(rows, plan.tokens, plan.tokens * plan.choices);
  const DType dtype = rows.values.dtype();
  const std::int64_t hidden = rows.values.cols();
  const int me = transport_.rank();
  auto transfer = std::make_unique<RowsTransfer>(RowsTransfer::Kind::dispatch);
  transfer->plan = &plan;
  transfer->result.values = arena.tensor(dtype, {plan.padded_rows, hidden});
  if (rows.scalars.defined()) {
    transfer->result.scalars = arena.zeros(DType::f32, {plan.padded_rows});
  }

  std::vector<std::int64_t> away = plan.send_rows;
  std::vector<std::int64_t> here = plan.recv_rows;
  away[as_index(me)] = here[as_index(me)] = 0;
  const MessageLayout layout{row_bytes_of(rows.values), kBlockAlignment, rows.scalars.defined(),
                             me};
  const std::vector<MessageBlock> sent_blocks = lay_out_messages(layout, away);
  transfer->received_blocks = lay_out_messages(layout, here);
  transfer->sent = stage(context, sent_blocks);
  transfer->received = stage(context, transfer->received_blocks);

  const std::vector<std::int64_t> begins = send_begins(plan);
  for (std::size_t rank = 0; rank < away.size(); ++rank) {
    if (away[rank] == 0) {
      continue;
    }
    std::byte* staged = transfer->sent.data();
    permute_rows(context, rows.values, plan.source_row.slice(begins[rank], away[rank]),
                 {staged + sent_blocks[rank].rows, dtype, {away[rank], hidden}});
    if (rows.scalars.defined()) {
      gather_scalars(plan, rows.scalars, begins[rank], away[rank],
                     staged + sent_blocks[rank].begin);
    }
  }
  post({"dispatch", plan.block}, sent_blocks, *transfer);
  dispatch_to_self(context, rows, begins[as_index(me)], me, plan, transfer->result);
  count_rows(context, plan.send_rows);
  return transfer;
}

Rows Exchange::finish_dispatch(const Context& context, TransferPtr transfer) {
  auto* movement = dynamic_cast<RowsTransfer*>(transfer.get());
  check(movement != nullptr && movement->kind == RowsTransfer::Kind::dispatch,
        "finish_dispatch() finishes what begin_dispatch() began");
  const ExchangePlan& plan = *movement->plan;
  const Rows& result = movement->result;
  zero_padding(plan, result.values);
  movement->request->wait();

  const std::size_t row_bytes = row_bytes_of(result.values);
  std::vector<MemoryCopy> copies;
  for (int rank = 0; rank < transport_.size(); ++rank) {
    if (rank == transport_.rank()) {
      continue;
    }
    const MessageBlock& block = movement->received_blocks[as_index(rank)];
    const std::byte* scalars = movement->received.data() + block.begin;
    const std::byte* values = movement->received.data() + block.rows;
    for_each_run(plan, rank, [&](std::int64_t arrival, std::int64_t padded, std::int64_t count) {
      copies.push_back({row_address(result.values, padded), values + as_index(arrival) * row_bytes,
                        as_index(count) * row_bytes});
      if (result.scalars.defined()) {
        copies.push_back({row_address(result.scalars, padded),
                          scalars + as_index(arrival) * sizeof(float),
                          as_index(count) * sizeof(float)});
      }
    });
  }
  run_copies(context, copies);
  return result;
}

}  // namespace cartesian
