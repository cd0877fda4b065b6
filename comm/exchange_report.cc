// From pivots to homes: what B chose.

#include "comm/exchange_step.h"

namespace cartesian {

namespace {

struct ReportStep final : Transfer {
  ReportStep(HopTransfer messages, std::int64_t width) : hop(std::move(messages)), choices(width) {}
  bool done() override { return hop.done(); }

  HopTransfer hop;
  std::int64_t choices;             ///< k of B
  std::vector<std::int64_t> from;   ///< [ranks] tokens that each reports here
  std::vector<std::byte> own_rows;  ///< of tokens that are at home at their pivot
};

std::size_t ids_bytes(std::int64_t choices) { return as_index(choices) * sizeof(std::int32_t); }
std::size_t row_bytes(std::int64_t choices) {
  return ids_bytes(choices) + as_index(choices) * sizeof(float);
}

std::size_t home_of(const ExchangePlan& plan, std::size_t target) {
  return as_index(plan.rails[as_index(plan.target_rails[target])].source.home);
}
std::size_t pivot_of(const ExchangePlan& plan, std::int64_t source) {
  return as_index(plan.rails[as_index(source)].target);
}

}  // namespace

TransferPtr Exchange::begin_report(const ExchangePlan& plan, const Choices& choices) {
  check(plan.to_pivots && choices.experts.rows() == plan.targets, "pivots report what B chose");
  const auto ranks = as_index(transport_.size());
  std::vector<std::int64_t> sent(ranks);
  std::vector<std::int64_t> received(ranks);
  for (std::size_t target = 0; target < plan.target_rails.size(); ++target) {
    ++sent[home_of(plan, target)];
  }
  for (std::int64_t source = 0; source < plan.sources; ++source) {
    ++received[pivot_of(plan, source)];
  }
  // A home's tokens have one order there and at every pivot: nothing needs to say which is which.
  const std::int64_t k = choices.experts.cols();
  const std::size_t bytes = row_bytes(k);
  auto step = std::make_unique<ReportStep>(
      HopTransfer(transport_, staging_, {.sent = sent, .received = received, .row_bytes = bytes}),
      k);
  step->from = received;
  step->own_rows.resize(as_index(sent[as_index(rank())]) * bytes);
  std::vector<std::int64_t> next = begins_of(sent);
  std::byte* own_row = step->own_rows.data();
  for (std::size_t target = 0; target < plan.target_rails.size(); ++target) {
    std::byte* row = step->hop.outgoing()[as_index(next[home_of(plan, target)]++)];
    if (row == nullptr) {
      row = own_row;
      own_row += bytes;
    }
    std::memcpy(row, choices.experts.data<std::int32_t>() + target * as_index(k), ids_bytes(k));
    std::memcpy(row + ids_bytes(k), choices.gates.data<float>() + target * as_index(k),
                bytes - ids_bytes(k));
  }
  step->hop.post({"report", plan.block});
  return step;
}

Choices Exchange::finish_report(Arena& arena, const ExchangePlan& plan, TransferPtr transfer) {
  auto* step = dynamic_cast<ReportStep*>(transfer.get());
  check(step != nullptr, "finish_report() finishes what begin_report() began");
  step->hop.wait();
  const std::int64_t k = step->choices;
  const Choices result{arena.tensor(DType::i32, {plan.sources, k}),
                       arena.tensor(DType::f32, {plan.sources, k})};
  std::vector<std::int64_t> next = begins_of(step->from);
  const std::byte* kept = step->own_rows.data();
  for (std::int64_t source = 0; source < plan.sources; ++source) {
    const std::byte* row = step->hop.arrived()[as_index(next[pivot_of(plan, source)]++)];
    if (row == nullptr) {
      row = kept;
      kept += row_bytes(k);
    }
    std::memcpy(result.experts.data<std::int32_t>() + source * k, row, ids_bytes(k));
    std::memcpy(result.gates.data<float>() + source * k, row + ids_bytes(k),
                row_bytes(k) - ids_bytes(k));
  }
  return result;
}

}  // namespace cartesian
