#pragma once
// Hop: rows that go from rank to rank in one step, and back the same way. Internal to the exchange.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "comm/buffer_pool.h"
#include "comm/transport.h"
#include "kernels/rows.h"

namespace cartesian {

/// Rows to and from each rank, this one among them. Ranks keep their rows in whatever order suits
/// them: `from` and `to` say which are meant.
struct Hop {
  std::vector<std::int64_t> sent;      ///< [ranks]
  std::vector<std::int64_t> received;  ///< [ranks]
  std::vector<std::int32_t> from;      ///< [rows sent], by the rank that they go to
  std::vector<std::int32_t> to;        ///< [rows received], by the rank that they come from
};

/// The first of each rank's rows, and the number of all: [ranks + 1].
std::vector<std::int64_t> begins_of(std::span<const std::int64_t> counts);

/// What one transfer over a hop sends and gets: rows of one size, and with them other bytes, for
/// and from each rank ([ranks], or empty for none).
struct HopSizes {
  std::span<const std::int64_t> sent;
  std::span<const std::int64_t> received;
  std::vector<std::size_t> extra_sent = {};
  std::vector<std::size_t> extra_received = {};
  std::size_t row_bytes = 0;
};

/// Messages of one transfer. Rows to the rank itself do not travel; extras to it are kept. A
/// message is its rows, then its extras.
class HopTransfer {
 public:
  HopTransfer(Transport& transport, BufferPool& staging, const HopSizes& sizes);

  /// Where the rows sent are to be written, by the rank that they go to; null for this rank's own.
  RowTargets outgoing() const { return outgoing_; }
  std::span<std::byte> extra_to(int rank) const;

  void post(CommPhase phase);
  bool done() const { return request_ == nullptr || request_->done(); }
  void wait();

  /// After wait(): the rows received, by the rank that they come from; null for this rank's own.
  RowSources arrived() const { return arrived_; }
  std::span<const std::byte> extra_from(int rank) const;

 private:
  struct Block {
    std::size_t begin = 0;
    std::size_t extra = 0;
    std::size_t end = 0;
  };
  /// One message behind another. Returns the bytes of all.
  std::size_t lay_out(std::span<const std::int64_t> rows, std::span<const std::size_t> extras,
                      bool own_extra, std::vector<Block>& blocks) const;

  Transport& transport_;
  std::size_t row_bytes_;
  std::vector<Block> out_, in_;
  BufferPool::Lease sent_, received_;
  std::vector<std::byte*> outgoing_;
  std::vector<const std::byte*> arrived_;
  std::unique_ptr<Request> request_;  // last, so that it ends before the buffers go back
};

}  // namespace cartesian
