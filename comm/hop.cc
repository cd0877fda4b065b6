#include "comm/hop.h"

#include <numeric>

#include "base/index.h"

namespace cartesian {

namespace {
constexpr std::size_t kAlignment = 64;  // messages begin on cache lines

std::size_t round_up(std::size_t bytes, std::size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}
}  // namespace

std::vector<std::int64_t> begins_of(std::span<const std::int64_t> counts) {
  std::vector<std::int64_t> begins(counts.size() + 1);
  std::partial_sum(counts.begin(), counts.end(), begins.begin() + 1);
  return begins;
}

HopTransfer::HopTransfer(Transport& transport, BufferPool& staging, const HopSizes& sizes)
    : transport_(transport), row_bytes_(sizes.row_bytes) {
  sent_ = staging.take(lay_out(sizes.sent, sizes.extra_sent, true, out_));
  received_ = staging.take(lay_out(sizes.received, sizes.extra_received, false, in_));
  const auto addresses = [&](std::span<const std::int64_t> rows, const std::vector<Block>& blocks,
                             std::byte* base, auto& list) {
    for (std::size_t rank = 0; rank < rows.size(); ++rank) {
      const bool own = static_cast<int>(rank) == transport_.rank();
      for (std::int64_t i = 0; i < rows[rank]; ++i) {
        list.push_back(own ? nullptr : base + blocks[rank].begin + as_index(i) * row_bytes_);
      }
    }
  };
  addresses(sizes.sent, out_, sent_.data(), outgoing_);
  addresses(sizes.received, in_, received_.data(), arrived_);
}

std::size_t HopTransfer::lay_out(std::span<const std::int64_t> rows,
                                 std::span<const std::size_t> extras, bool own_extra,
                                 std::vector<Block>& blocks) const {
  std::size_t at = 0;
  for (std::size_t rank = 0; rank < rows.size(); ++rank) {
    const bool own = static_cast<int>(rank) == transport_.rank();
    const std::size_t bytes = own ? 0 : as_index(rows[rank]) * row_bytes_;
    const std::size_t extra = extras.empty() || (own && !own_extra) ? 0 : extras[rank];
    Block block{.begin = at, .extra = at + bytes, .end = at + bytes};
    if (extra > 0) {
      block.extra = at + round_up(bytes, sizeof(float));
      block.end = block.extra + extra;
    }
    at = round_up(block.end, kAlignment);
    blocks.push_back(block);
  }
  return at;
}

std::span<std::byte> HopTransfer::extra_to(int rank) const {
  const Block& block = out_[as_index(rank)];
  return {sent_.data() + block.extra, block.end - block.extra};
}

std::span<const std::byte> HopTransfer::extra_from(int rank) const {
  if (rank == transport_.rank()) {
    return extra_to(rank);
  }
  const Block& block = in_[as_index(rank)];
  return {received_.data() + block.extra, block.end - block.extra};
}

void HopTransfer::post(CommPhase phase) {
  MessageGroup group{phase, {}, {}};
  for (int rank = 0; rank < transport_.size(); ++rank) {
    if (rank == transport_.rank()) {
      continue;
    }
    const Block& out = out_[as_index(rank)];
    const Block& in = in_[as_index(rank)];
    if (out.end > out.begin) {
      group.sends.push_back({rank, {sent_.data() + out.begin, out.end - out.begin}});
    }
    if (in.end > in.begin) {
      group.recvs.push_back({rank, {received_.data() + in.begin, in.end - in.begin}});
    }
  }
  if (transport_.size() > 1) {  // with nothing, too: all ranks post the same groups
    request_ = transport_.post(std::move(group));
  }
}

void HopTransfer::wait() {
  if (request_ != nullptr) {
    request_->wait();
  }
}

}  // namespace cartesian
