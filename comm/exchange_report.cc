// From pivots to homes: what B chose.

#include "comm/exchange_step.h"

namespace cartesian {

Choices Exchange::report(Arena& arena, const ExchangePlan& plan, const Choices& choices) {
  check(plan.to_pivots && choices.experts.rows() == plan.targets, "pivots report what B chose");
  const auto ranks = as_index(transport_.size());
  const std::int64_t k = choices.experts.cols();
  Hop hop{.sent = std::vector<std::int64_t>(ranks),
          .received = std::vector<std::int64_t>(ranks),
          .from = {},
          .to = {}};
  const auto home = [&](std::size_t target) {
    return as_index(plan.rails[as_index(plan.target_rails[target])].source.home);
  };
  const auto pivot = [&](std::int64_t source) {
    return as_index(plan.rails[as_index(source)].target);
  };
  for (std::size_t target = 0; target < plan.target_rails.size(); ++target) {
    ++hop.sent[home(target)];
  }
  for (std::int64_t source = 0; source < plan.sources; ++source) {
    ++hop.received[pivot(source)];
  }
  // A home's tokens have one order there and at every pivot: nothing needs to say which is which.
  const std::size_t ids = as_index(k) * sizeof(std::int32_t);
  const std::size_t bytes = ids + as_index(k) * sizeof(float);
  HopTransfer transfer(transport_, staging_,
                       {.sent = hop.sent, .received = hop.received, .row_bytes = bytes});
  std::vector<std::byte> own(as_index(hop.sent[as_index(rank())]) * bytes);
  std::vector<std::int64_t> next = begins_of(hop.sent);
  std::byte* own_row = own.data();
  for (std::size_t target = 0; target < plan.target_rails.size(); ++target) {
    std::byte* row = transfer.outgoing()[as_index(next[home(target)]++)];
    if (row == nullptr) {
      row = own_row;
      own_row += bytes;
    }
    std::memcpy(row, choices.experts.data<std::int32_t>() + target * as_index(k), ids);
    std::memcpy(row + ids, choices.gates.data<float>() + target * as_index(k), bytes - ids);
  }
  transfer.post({"report", plan.block});
  transfer.wait();
  const Choices result{arena.tensor(DType::i32, {plan.sources, k}),
                       arena.tensor(DType::f32, {plan.sources, k})};
  next = begins_of(hop.received);
  const std::byte* kept = own.data();
  for (std::int64_t source = 0; source < plan.sources; ++source) {
    const std::byte* row = transfer.arrived()[as_index(next[pivot(source)]++)];
    if (row == nullptr) {
      row = kept;
      kept += bytes;
    }
    std::memcpy(result.experts.data<std::int32_t>() + source * k, row, ids);
    std::memcpy(result.gates.data<float>() + source * k, row + ids, bytes - ids);
  }
  return result;
}

}  // namespace cartesian
