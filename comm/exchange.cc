#include "comm/exchange.h"

#include <fmt/format.h>

#include <array>

#include "base/check.h"
#include "comm/exchange_transfer.h"

namespace cartesian {

Exchange::Exchange(Transport& transport, const Topology& topology, const Placement& placement)
    : transport_(transport), topology_(topology), placement_(placement) {
  check(topology.ranks() == transport.size() && placement.shape().ranks == transport.size(),
        "transport, topology and placement have the same ranks");
}

void Exchange::count_rows(const Context& context, std::span<const std::int64_t> rows_to_rank) {
  const int me = transport_.rank();
  std::array<std::int64_t, 3> rows{};
  for (int rank = 0; rank < transport_.size(); ++rank) {
    const std::size_t scope = rank == me ? 0 : topology_.node(rank) == topology_.node(me) ? 1 : 2;
    rows[scope] += rows_to_rank[as_index(rank)];
  }
  constexpr std::array kScopes{"self", "intra", "inter"};
  for (std::size_t scope = 0; scope < rows.size(); ++scope) {
    if (rows[scope] > 0) {
      context.metrics
          .counter(fmt::format("cartesian_exchange_rows_total{{scope=\"{}\"}}", kScopes[scope]))
          .add(static_cast<double>(rows[scope]));
    }
  }
}

BufferPool::Lease Exchange::stage(const Context& context, std::span<const MessageBlock> blocks) {
  const std::int64_t growths = staging_.growths();
  BufferPool::Lease lease = staging_.take(blocks.back().end);
  if (staging_.growths() > growths) {
    context.metrics.counter("cartesian_exchange_staging_growths_total").add(1.0);
  }
  return lease;
}

void Exchange::post(CommPhase phase, std::span<const MessageBlock> sent_blocks,
                    RowsTransfer& transfer) {
  MessageGroup group{phase, {}, {}};
  for (int rank = 0; rank < transport_.size(); ++rank) {
    if (rank != transport_.rank()) {
      group.sends.push_back({rank, transfer.sent_message(sent_blocks[as_index(rank)])});
      group.recvs.push_back(
          {rank, transfer.received_message(transfer.received_blocks[as_index(rank)])});
    }
  }
  transfer.request = transport_.post(std::move(group));
}

}  // namespace cartesian
