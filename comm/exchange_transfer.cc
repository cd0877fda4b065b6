#include "comm/exchange_transfer.h"

#include <cstring>

#include "base/check.h"
#include "kernels/parallel.h"

namespace cartesian {

std::vector<MessageBlock> lay_out_messages(const MessageLayout& layout,
                                           std::span<const std::int64_t> counts) {
  std::vector<MessageBlock> blocks;
  std::size_t end = 0;
  for (std::size_t rank = 0; rank < counts.size(); ++rank) {
    const std::size_t count = as_index(counts[rank]);
    const bool scalars = layout.scalars && static_cast<int>(rank) != layout.self;
    const std::size_t scalar_bytes = scalars ? count * sizeof(float) : 0;
    const std::size_t rows =
        (end + scalar_bytes + layout.alignment - 1) / layout.alignment * layout.alignment;
    end = rows + count * layout.row_bytes;
    blocks.push_back({rows - scalar_bytes, rows, end});
  }
  return blocks;
}

void run_copies(const Context& context, std::span<const MemoryCopy> copies) {
  parallel_blocks(context, static_cast<std::int64_t>(copies.size()), 1,
                  [copies](std::int64_t begin, std::int64_t) {
                    const MemoryCopy& copy = copies[as_index(begin)];
                    std::memcpy(copy.to, copy.from, copy.bytes);
                  });
}

std::vector<std::int64_t> send_begins(const ExchangePlan& plan) {
  std::vector<std::int64_t> begins;
  std::int64_t begin = 0;
  for (const std::int64_t rows : plan.send_rows) {
    begins.push_back(begin);
    begin += rows;
  }
  return begins;
}

void check_rows(const Rows& rows, std::int64_t count, std::int64_t scalars) {
  check(rows.values.shape().rank() == 2 && rows.values.rows() == count && rows.values.cols() > 0,
        "an exchange moves rows [n, hidden], as many as its plan says");
  check(rows.values.dtype() == DType::f32 || rows.values.dtype() == DType::bf16,
        "an exchange moves float32 or bfloat16 rows");
  check(!rows.scalars.defined() ||
            (rows.scalars.dtype() == DType::f32 && rows.scalars.numel() == scalars),
        "an exchange moves one float32 scalar for each row or choice");
  check(rows.values.device() == Device::cpu, "an exchange moves rows in the host's memory");
}

}  // namespace cartesian
