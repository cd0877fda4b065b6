// Between rails and targets: sums on, gradients of them back.

#include <algorithm>
#include <numeric>

#include "comm/exchange_step.h"

namespace cartesian {

namespace {

constexpr std::string_view kReturn = "return";
constexpr std::string_view kSpreadGradients = "spread gradients";

std::vector<std::size_t> bytes_of_keys(bool keys, const std::vector<std::int64_t>& rows) {
  std::vector<std::size_t> bytes;
  for (const std::int64_t count : rows) {
    bytes.push_back(keys ? as_index(count) * sizeof(std::int32_t) : 0);
  }
  return bytes;
}

/// Rows of targets by token.
class TargetRows {
 public:
  explicit TargetRows(const ExchangePlan& plan) : plan_(plan) {
    for (std::size_t row = 0; row < plan.target_rails.size(); ++row) {
      const RailToken& rail = plan.rails[as_index(plan.target_rails[row])];
      by_token_.emplace_back(rail.source.token, static_cast<std::int32_t>(row));
    }
    std::ranges::sort(by_token_);
  }

  std::int32_t row(std::int32_t token) const {
    if (!plan_.to_pivots) {
      const std::int64_t row = token - plan_.first_home_token;
      check(row >= 0 && row < plan_.targets, "sums return to the homes of their tokens");
      return static_cast<std::int32_t>(row);
    }
    const auto found = std::ranges::lower_bound(by_token_, token, {},
                                                &std::pair<std::int32_t, std::int32_t>::first);
    check(found != by_token_.end() && found->first == token,
          "sums go to the pivots of their tokens");
    return found->second;
  }

 private:
  const ExchangePlan& plan_;
  std::vector<std::pair<std::int32_t, std::int32_t>> by_token_;
};

}  // namespace

/// Rails tell the targets how many rows they will send, where those cannot know.
void Exchange::begin_counting(ExchangePlan& plan) {
  const int me = transport_.rank();
  if (!plan.finds_targets) {
    plan.to_targets.received = plan.to_rails.sent;
    plan.to_targets.received[as_index(me)] = plan.to_targets.sent[as_index(me)];
    return;
  }
  plan.to_targets.received.assign(as_index(transport_.size()), 0);
  plan.to_targets.received[as_index(me)] = plan.to_targets.sent[as_index(me)];
  MessageGroup group{{"plan", plan.block}, {}, {}};
  for (int rank = 0; rank < transport_.size(); ++rank) {
    if (rank != me) {
      group.sends.push_back(
          {rank, std::as_bytes(std::span(plan.to_targets.sent).subspan(as_index(rank), 1))});
      group.recvs.push_back(
          {rank,
           std::as_writable_bytes(std::span(plan.to_targets.received).subspan(as_index(rank), 1))});
    }
  }
  plan.counting = transport_.post(std::move(group));
}

TransferPtr Exchange::begin_return(const Context& context, ExchangePlan& plan, DType dtype,
                                   std::int64_t hidden, RowSources rails) {
  check(rails.size() == plan.rails.size(), "every rail has its row");
  if (plan.counting != nullptr) {
    plan.counting->wait();
    plan.counting.reset();
  }
  const std::size_t row_bytes = bytes_of_rows(dtype, hidden);
  const Hop& hop = plan.to_targets;
  auto step = std::make_unique<HopStep>(
      kReturn,
      new_transfer(context, {.sent = hop.sent,
                             .received = hop.received,
                             .extra_sent = bytes_of_keys(plan.finds_targets, hop.sent),
                             .extra_received = bytes_of_keys(plan.finds_targets, hop.received),
                             .row_bytes = row_bytes}));
  step->dtype = dtype;
  step->hidden = hidden;
  for (const std::int32_t rail : hop.from) {
    step->held.push_back(rails[as_index(rail)]);
  }
  copy_rows(context, step->held, step->hop.outgoing(), row_bytes);
  std::size_t at = 0;
  for (int rank = 0; rank < transport_.size() && plan.finds_targets; ++rank) {
    Writer writer(step->hop.extra_to(rank));
    for (std::int64_t i = 0; i < hop.sent[as_index(rank)]; ++i) {
      writer.put(plan.rails[as_index(hop.from[at++])].source.token);
    }
  }
  step->hop.post({"combine", plan.block});
  return step;
}

void Exchange::finish_return(const Context& context, ExchangePlan& plan, TransferPtr transfer,
                             RowTargets out) {
  HopStep& step = step_of(transfer, kReturn);
  check(static_cast<std::int64_t>(out.size()) == plan.targets, "every target has its row");
  const int me = transport_.rank();
  Hop& hop = plan.to_targets;
  const TargetRows rows(plan);
  const std::vector<std::int64_t> sent = begins_of(hop.sent);
  const std::vector<std::int64_t> received = begins_of(hop.received);
  hop.to.clear();
  std::size_t mirrored = 0;
  for (int rank = 0; rank < transport_.size(); ++rank) {
    Reader reader(step.hop.extra_from(rank));
    for (std::int64_t i = 0; i < hop.received[as_index(rank)]; ++i) {
      if (rank == me) {
        const std::int32_t rail = hop.from[as_index(sent[as_index(me)] + i)];
        hop.to.push_back(rows.row(plan.rails[as_index(rail)].source.token));
      } else {
        hop.to.push_back(plan.finds_targets ? rows.row(reader.take<std::int32_t>())
                                            : plan.to_rails.from[mirrored++]);
      }
    }
  }

  // In order of nodes; a token has one rail on each.
  std::vector<std::int64_t> begins(out.size() + 1);
  for (const std::int32_t row : hop.to) {
    ++begins[as_index(row) + 1];
  }
  std::partial_sum(begins.begin(), begins.end(), begins.begin());
  std::vector<std::int64_t> next(begins.begin(), begins.end() - 1);
  std::vector<const std::byte*> terms(as_index(begins.back()));
  for (const int rank : ranks_by_node_) {
    for (std::int64_t i = received[as_index(rank)]; i < received[as_index(rank) + 1]; ++i) {
      const std::byte* row =
          rank == me ? step.held[as_index(sent[as_index(me)] + i - received[as_index(me)])]
                     : step.hop.arrived()[as_index(i)];
      terms[as_index(next[as_index(hop.to[as_index(i)])]++)] = row;
    }
  }
  sum_rows(context, step.dtype, step.hidden, begins, terms, out);
}

TransferPtr Exchange::begin_spread_gradients(const Context& context, const ExchangePlan& plan,
                                             const Tensor& rows) {
  check(rows.rows() == plan.targets, "one row for every target");
  const std::size_t row_bytes = bytes_of_rows(rows.dtype(), rows.cols());
  const Hop& hop = plan.to_targets;
  auto step = std::make_unique<HopStep>(
      kSpreadGradients,
      new_transfer(context, {.sent = hop.received, .received = hop.sent, .row_bytes = row_bytes}));
  const std::vector<const std::byte*> addresses = row_sources(rows);
  for (const std::int32_t row : hop.to) {
    step->held.push_back(addresses[as_index(row)]);
  }
  copy_rows(context, step->held, step->hop.outgoing(), row_bytes);
  step->hop.post({"dispatch", plan.block});
  return step;
}

HeldRows Exchange::finish_spread_gradients(const ExchangePlan& plan, TransferPtr transfer) {
  HopStep& step = step_of(transfer, kSpreadGradients);
  const Hop& hop = plan.to_targets;
  const auto me = as_index(transport_.rank());
  const std::int64_t own_sent = begins_of(hop.sent)[me];
  const std::int64_t own_received = begins_of(hop.received)[me];
  HeldRows result{std::vector<const std::byte*>(plan.rails.size()), nullptr};
  for (std::size_t i = 0; i < hop.from.size(); ++i) {
    const std::byte* row = step.hop.arrived()[i];
    result.rows[as_index(hop.from[i])] =
        row != nullptr
            ? row
            : step.held[as_index(static_cast<std::int64_t>(i) - own_sent + own_received)];
  }
  result.held = std::move(transfer);
  return result;
}

}  // namespace cartesian
