// Stage one of an exchange: who sends how many rows where.

#include <algorithm>
#include <limits>
#include <numeric>

#include "base/check.h"
#include "comm/exchange_transfer.h"
#include "kernels/parallel.h"

namespace cartesian {

namespace {

/// Rows start at a multiple of this in every slot.
constexpr std::int64_t kRowAlignment = 16;
/// Up to this many rows the alignment is all there is to padding.
constexpr std::int64_t kFinePaddingLimit = 512;

/// The slots of all ranks for one (layer, group), numbered rank by rank.
class SlotNumbers {
 public:
  SlotNumbers(const Placement& placement, int layer, int group)
      : placement_(placement), layer_(layer), group_(group) {
    first_.push_back(0);
    for (int rank = 0; rank < placement.shape().ranks; ++rank) {
      const auto slots = placement.experts_on(layer, group, rank).size();
      first_.push_back(first_.back() + static_cast<std::int64_t>(slots));
    }
  }

  /// The number of slot 0 of `rank`; of the rank after the last, the number of slots in all.
  std::int64_t first(int rank) const { return first_[as_index(rank)]; }
  std::int64_t count(int rank) const { return first(rank + 1) - first(rank); }
  std::int64_t total() const { return first_.back(); }
  std::int64_t number(int rank, int expert) const {
    return first(rank) + placement_.slot(layer_, group_, rank, expert);
  }

 private:
  const Placement& placement_;
  int layer_;
  int group_;
  std::vector<std::int64_t> first_;
};

/// A choice of a token, with what orders the sum over its choices.
struct Summand {
  int node = 0;
  std::int32_t expert = 0;
  std::int32_t position = 0;
};

/// Fills in the plan's send side for the replicas chosen: a counting sort by slot number, which
/// keeps the order of tokens. Returns the rows for each slot number.
std::vector<std::int64_t> order_send_rows(Arena& arena, const Topology& topology,
                                          const SlotNumbers& slots, const Tensor& experts,
                                          std::span<const std::int32_t> ranks, ExchangePlan& plan) {
  const auto chosen = experts.span<std::int32_t>();
  std::vector<std::int64_t> counts(as_index(slots.total()));
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    if (chosen[i] >= 0) {
      ++counts[as_index(slots.number(ranks[i], chosen[i]))];
    }
  }
  std::vector<std::int64_t> next(counts.size());
  std::exclusive_scan(counts.begin(), counts.end(), next.begin(), std::int64_t{0});
  const std::int64_t sent = std::reduce(counts.begin(), counts.end());

  plan.source_row = arena.tensor(DType::i32, {sent});
  plan.source_choice = arena.tensor(DType::i32, {sent});
  plan.positions = arena.tensor(DType::i32, experts.shape());
  const auto source_row = plan.source_row.span<std::int32_t>();
  const auto source_choice = plan.source_choice.span<std::int32_t>();
  const auto positions = plan.positions.span<std::int32_t>();
  std::ranges::fill(positions, -1);

  std::vector<Summand> summands;
  const auto choices = as_index(plan.choices);
  for (std::int64_t token = 0; token < plan.tokens; ++token) {
    summands.clear();
    for (std::size_t choice = 0; choice < choices; ++choice) {
      const std::size_t i = as_index(token) * choices + choice;
      if (chosen[i] < 0) {
        continue;
      }
      const std::int64_t position = next[as_index(slots.number(ranks[i], chosen[i]))]++;
      source_row[as_index(position)] = static_cast<std::int32_t>(token);
      source_choice[as_index(position)] = static_cast<std::int32_t>(choice);
      summands.push_back({topology.node(ranks[i]), chosen[i], static_cast<std::int32_t>(position)});
    }
    std::ranges::sort(summands, [](const Summand& a, const Summand& b) {
      return a.node != b.node ? a.node < b.node : a.expert < b.expert;
    });
    for (std::size_t j = 0; j < summands.size(); ++j) {
      positions[as_index(token) * choices + j] = summands[j].position;
    }
  }
  return counts;
}

/// Fills in the plan's receive side from the rows of each run.
void lay_out_slots(int ranks, std::int64_t slots, ExchangePlan& plan) {
  plan.recv_rows.assign(as_index(ranks), 0);
  plan.run_begin.resize(plan.run_rows.size());
  plan.slot_offsets.assign(1, 0);
  for (std::int64_t slot = 0; slot < slots; ++slot) {
    std::int64_t row = plan.slot_offsets.back();
    for (int rank = 0; rank < ranks; ++rank) {
      const std::size_t run = as_index(rank * slots + slot);
      plan.run_begin[run] = row;
      row += plan.run_rows[run];
      plan.recv_rows[as_index(rank)] += plan.run_rows[run];
    }
    const std::int64_t rows = row - plan.slot_offsets.back();
    plan.slot_rows.push_back(rows);
    plan.slot_offsets.push_back(plan.slot_offsets.back() + padded_row_count(rows));
  }
  plan.padded_rows = plan.slot_offsets.back();
  check(plan.padded_rows <= std::numeric_limits<std::int32_t>::max(),
        "a rank's received rows fit 32 bits");
}

struct PlanTransfer final : Transfer {
  bool done() const override { return request->done(); }

  ExchangePlan plan;
  std::int64_t slots = 0;
  std::vector<std::int64_t> sent_counts;  ///< by slot number
  std::unique_ptr<Request> request;
};

/// Which replica serves each choice.
void choose_ranks(const Context& context, const TokenRouting& routing, int home,
                  const Placement& placement, const Topology& topology,
                  std::span<std::int32_t> ranks) {
  const auto chosen = routing.experts.span<std::int32_t>();
  const int experts = placement.shape().experts;
  check(std::ranges::all_of(chosen, [experts](std::int32_t e) { return e < experts; }),
        "chosen experts exist");
  const auto choices = as_index(routing.experts.dim(1));
  constexpr std::int64_t kBlock = 256;
  parallel_blocks(context, routing.experts.rows(), kBlock,
                  [&](std::int64_t first, std::int64_t end) {
                    for (std::int64_t token = first; token < end; ++token) {
                      const std::size_t begin = as_index(token) * choices;
                      choose_replicas({.layer = routing.layer,
                                       .group = routing.group,
                                       .origin = home,
                                       .home = home,
                                       .token = routing.first_token + token,
                                       .experts = chosen.subspan(begin, choices)},
                                      placement, topology, ranks.subspan(begin, choices));
                    }
                  });
}

}  // namespace

std::int64_t padded_row_count(std::int64_t rows) {
  std::int64_t unit = kRowAlignment;
  for (std::int64_t power = kFinePaddingLimit; power < rows; power *= 2) {
    unit *= 2;
  }
  return (rows + unit - 1) / unit * unit;
}

TransferPtr Exchange::begin_plan(const Context& context, Arena& arena,
                                 const TokenRouting& routing) {
  check(routing.experts.dtype() == DType::i32 && routing.experts.shape().rank() == 2,
        "chosen experts are int32 [tokens, k]");
  const SlotNumbers slots(placement_, routing.layer, routing.group);
  const int me = transport_.rank();
  auto transfer = std::make_unique<PlanTransfer>();
  ExchangePlan& plan = transfer->plan;
  plan.block = routing.block;
  plan.tokens = routing.experts.rows();
  plan.choices = static_cast<int>(routing.experts.dim(1));
  {
    const ArenaScope scope(context.scratch);
    const Tensor ranks = context.scratch.tensor(DType::i32, routing.experts.shape());
    choose_ranks(context, routing, me, placement_, topology_, ranks.span<std::int32_t>());
    transfer->sent_counts =
        order_send_rows(arena, topology_, slots, routing.experts, ranks.span<std::int32_t>(), plan);
  }

  transfer->slots = slots.count(me);
  plan.run_rows.resize(as_index(transport_.size() * transfer->slots));
  const std::span<std::int64_t> sent = transfer->sent_counts;
  const std::span<std::int64_t> received = plan.run_rows;
  MessageGroup group{{"plan", plan.block}, {}, {}};
  for (int rank = 0; rank < transport_.size(); ++rank) {
    const auto to = sent.subspan(as_index(slots.first(rank)), as_index(slots.count(rank)));
    const auto from = received.subspan(as_index(rank * transfer->slots), as_index(transfer->slots));
    plan.send_rows.push_back(std::reduce(to.begin(), to.end()));
    if (rank == me) {
      std::ranges::copy(to, from.begin());
      continue;
    }
    group.sends.push_back({rank, std::as_bytes(to)});
    group.recvs.push_back({rank, std::as_writable_bytes(from)});
  }
  transfer->request = transport_.post(std::move(group));
  return transfer;
}

ExchangePlan Exchange::finish_plan(const Context&, TransferPtr transfer) {
  auto* stage = dynamic_cast<PlanTransfer*>(transfer.get());
  check(stage != nullptr, "finish_plan() finishes what begin_plan() began");
  stage->request->wait();
  lay_out_slots(transport_.size(), stage->slots, stage->plan);
  return std::move(stage->plan);
}

}  // namespace cartesian
