#pragma once
// What dispatch and combine share: how messages lie in staging buffers, and runs of rows. Internal
// to comm/exchange*.cc. A message is the scalars of its rows, if there are any, then the rows.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/arena.h"
#include "base/context.h"
#include "base/index.h"
#include "comm/buffer_pool.h"
#include "comm/exchange.h"

namespace cartesian {

inline std::size_t row_bytes_of(const Tensor& rows) {
  return static_cast<std::size_t>(rows.cols()) * size_of(rows.dtype());
}

inline std::byte* row_address(const Tensor& rows, std::int64_t row) {
  return static_cast<std::byte*>(rows.raw()) + as_index(row) * row_bytes_of(rows);
}

/// A message in a staging buffer: offsets in bytes.
struct MessageBlock {
  std::size_t begin = 0;
  std::size_t rows = 0;  ///< where its rows begin, after the scalars
  std::size_t end = 0;
};

/// How the blocks of one staging buffer are laid out.
struct MessageLayout {
  std::size_t row_bytes = 0;
  std::size_t alignment = 0;  ///< every block's rows begin at a multiple of this
  bool scalars = false;
  int self = -1;  ///< rows of this rank do not travel: its block has no scalars
};

/// One block behind another, for `counts` rows from or to each rank.
std::vector<MessageBlock> lay_out_messages(const MessageLayout& layout,
                                           std::span<const std::int64_t> counts);

/// A movement in flight, either way.
struct RowsTransfer final : Transfer {
  enum class Kind : std::uint8_t { dispatch, combine };

  explicit RowsTransfer(Kind transfer_kind) : kind(transfer_kind) {}
  bool done() const override { return request->done(); }
  std::span<std::byte> sent_message(const MessageBlock& block) const {
    return {sent.data() + block.begin, block.end - block.begin};
  }
  std::span<std::byte> received_message(const MessageBlock& block) const {
    return {received.data() + block.begin, block.end - block.begin};
  }

  Kind kind;
  const ExchangePlan* plan = nullptr;
  Rows result;
  BufferPool::Lease sent;
  BufferPool::Lease received;
  std::vector<MessageBlock> received_blocks;
  std::unique_ptr<Request> request;  ///< last, so that it ends before the buffers go back
};

/// Memory to copy.
struct MemoryCopy {
  std::byte* to = nullptr;
  const std::byte* from = nullptr;
  std::size_t bytes = 0;
};
void run_copies(const Context& context, std::span<const MemoryCopy> copies);

/// The first row of the send order for each rank.
std::vector<std::int64_t> send_begins(const ExchangePlan& plan);

/// Aborts unless `rows` are what a movement of `count` rows and `scalars` scalars needs.
void check_rows(const Rows& rows, std::int64_t count, std::int64_t scalars);

/// Calls visit(row among the source's rows, padded row, rows) for each of a source rank's runs.
template <class Visit>
void for_each_run(const ExchangePlan& plan, int rank, const Visit& visit) {
  const std::size_t slots = plan.slot_rows.size();
  std::int64_t arrival = 0;
  for (std::size_t slot = 0; slot < slots; ++slot) {
    const std::size_t run = static_cast<std::size_t>(rank) * slots + slot;
    if (plan.run_rows[run] > 0) {
      visit(arrival, plan.run_begin[run], plan.run_rows[run]);
      arrival += plan.run_rows[run];
    }
  }
}

/// Calls visit(element among [tokens, k], i) for rows begin + i of the send order, i < count.
template <class Visit>
void for_each_choice(const ExchangePlan& plan, std::int64_t begin, std::int64_t count,
                     const Visit& visit) {
  const auto rows = plan.source_row.span<std::int32_t>().subspan(as_index(begin), as_index(count));
  const auto choices =
      plan.source_choice.span<std::int32_t>().subspan(as_index(begin), as_index(count));
  for (std::size_t i = 0; i < rows.size(); ++i) {
    visit(as_index(std::int64_t{rows[i]} * plan.choices + choices[i]), i);
  }
}

}  // namespace cartesian
