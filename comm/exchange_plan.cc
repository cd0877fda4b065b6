// The plan's first step: which ways the tokens routed here take, and how much goes to each rank.

#include "comm/exchange_plan.h"

#include <algorithm>
#include <numeric>
#include <tuple>

#include "base/check.h"
#include "base/index.h"
#include "comm/exchange.h"
#include "kernels/parallel.h"

namespace cartesian {

namespace {

/// Rows start at a multiple of this in every slot.
constexpr std::int64_t kRowAlignment = 16;
/// Up to this many rows the alignment is all there is to padding.
constexpr std::int64_t kFinePaddingLimit = 512;

/// A choice with what orders it.
struct Way {
  int node = 0;
  std::int32_t rank = 0;
  std::int32_t expert = 0;
  std::int32_t column = 0;
};

/// The choices of one token that one rail serves: ways [first, first + count).
struct Visit {
  std::int64_t source = 0;
  int rail = 0;
  std::int64_t first = 0;
  std::int64_t count = 0;
};

struct PlanTransfer final : Transfer {
  bool done() override { return request == nullptr || request->done(); }

  ExchangePlan plan;
  std::vector<std::int64_t> sent, received;  ///< counts, by rank
  std::vector<std::int64_t> begins_sent;     ///< [ranks + 1]
  std::int64_t width = 0;                    ///< counts from each rank
  std::unique_ptr<Request> request;
};

/// The ways of the tokens that one rank routes.
class Router {
 public:
  Router(const TokenRouting& routing, const ExchangeOptions& options, Flow flow, int me,
         const Placement& placement, const Topology& topology)
      : routing_(routing),
        options_(options),
        flow_(flow),
        me_(me),
        placement_(placement),
        topology_(topology),
        k_(as_index(routing.experts.cols())),
        chosen_(routing.experts.span<std::int32_t>()),
        ranks_(chosen_.size()),
        targets_(routing.tokens.size()),
        finishers_(routing.tokens.size()) {
    check(
        std::ranges::all_of(chosen_, [&](std::int32_t e) { return e < placement.shape().experts; }),
        "chosen experts exist");
  }

  void choose(const Context& context) {
    constexpr std::int64_t kBlock = 256;
    parallel_blocks(context, static_cast<std::int64_t>(targets_.size()), kBlock,
                    [&](std::int64_t first, std::int64_t end) {
                      for (std::int64_t t = first; t < end; ++t) {
                        choose(as_index(t));
                      }
                    });
  }

  /// Calls visit(source, ways of one rail, rail) for every token and rail, in order of sums.
  void list_visits(std::vector<Way>& ways, std::vector<Visit>& visits) const {
    std::vector<Way> mine;
    for (std::size_t t = 0; t < targets_.size(); ++t) {
      mine.clear();
      for (std::size_t j = 0; j < k_; ++j) {
        const std::int32_t rank = ranks_[t * k_ + j];
        if (rank >= 0) {
          mine.push_back(
              {topology_.node(rank), rank, chosen_[t * k_ + j], static_cast<std::int32_t>(j)});
        }
      }
      std::ranges::sort(mine, {}, [&](const Way& way) {
        return std::tuple(way.node, flow_ == Flow::flat ? 0 : way.rank, way.expert);
      });
      for (const Way& way : mine) {
        const int rail = rail_of(way.node, t);
        if (visits.empty() || visits.back().source != static_cast<std::int64_t>(t) ||
            visits.back().rail != rail) {
          visits.push_back(
              {static_cast<std::int64_t>(t), rail, static_cast<std::int64_t>(ways.size()), 0});
        }
        ways.push_back(way);
        ++visits.back().count;
      }
    }
  }

  /// Tokens whose target is another rank, and those with an expert on this node.
  std::int64_t count_away() const {
    return static_cast<std::int64_t>(targets_.size()) -
           std::ranges::count(targets_, std::int32_t{me_});
  }
  std::int64_t count_hosted() const {
    std::int64_t hosted = 0;
    for (std::size_t t = 0; t < targets_.size(); ++t) {
      hosted += std::ranges::any_of(std::span(ranks_).subspan(t * k_, k_), [&](std::int32_t rank) {
        return rank >= 0 && topology_.node(rank) == topology_.node(me_);
      });
    }
    return hosted;
  }

  RailToken rail_token(std::size_t t, int rail) const {
    return {.source = routing_.tokens[t],
            .target = targets_[t],
            .shared_weight =
                routing_.shared_weights.defined() ? routing_.shared_weights.data<float>()[t] : 0,
            .choices = 0,
            .finishes = static_cast<std::int16_t>(finishers_[t] == rail ? 1 : 0)};
  }
  RailChoice rail_choice(std::int64_t source, const Way& way) const {
    return {way.expert, way.rank,
            routing_.gates.data<float>()[as_index(source) * k_ + as_index(way.column)]};
  }

 private:
  bool to_pivots() const { return flow_ == Flow::pivot && routing_.group == 0; }

  int rail_of(int node, std::size_t t) const {
    return flow_ == Flow::flat || node == topology_.node(me_)
               ? me_
               : topology_.rail(node, routing_.tokens[t].home);
  }

  void choose(std::size_t t) {
    const SourceToken& token = routing_.tokens[t];
    const auto chosen = chosen_.subspan(t * k_, k_);
    const auto ranks = std::span(ranks_).subspan(t * k_, k_);
    choose_replicas({.layer = routing_.layer,
                     .group = routing_.group,
                     .origin = me_,
                     .home = token.home,
                     .token = token.token,
                     .experts = chosen},
                    placement_, topology_, ranks);
    if (!to_pivots()) {
      targets_[t] = token.home;
      finishers_[t] = choose_finisher(flow_, token.home, me_, ranks, topology_);
      return;
    }
    std::span<const std::int32_t> expected;
    if (options_.pivot == PivotBy::speculative && routing_.expected.defined()) {
      const auto width = as_index(routing_.expected.cols());
      expected = routing_.expected.span<std::int32_t>().subspan(t * width, width);
    }
    targets_[t] = choose_pivot(flow_, routing_.layer, token.home, token.token,
                               {.a = chosen,
                                .gates = routing_.gates.span<float>().subspan(t * k_, k_),
                                .a_ranks = ranks,
                                .b = expected},
                               placement_, topology_);
    finishers_[t] = targets_[t];
  }

  const TokenRouting& routing_;
  const ExchangeOptions& options_;
  Flow flow_;
  int me_;
  const Placement& placement_;
  const Topology& topology_;
  std::size_t k_;
  std::span<const std::int32_t> chosen_;
  std::vector<std::int32_t> ranks_;      // [tokens, k]
  std::vector<std::int32_t> targets_;    // [tokens]
  std::vector<std::int32_t> finishers_;  // [tokens]
};

void count(const Context& context, const char* name, std::int64_t tokens) {
  context.metrics.counter(name).add(static_cast<double>(tokens));
}

/// Sorts the visits of other ranks by rail, and puts them and this rank's own into the plan.
void list_rails(const Router& router, std::span<const Way> ways, std::span<const Visit> visits,
                int me, int ranks, ExchangePlan& plan) {
  plan.to_rails.sent.assign(as_index(ranks), 0);
  plan.choices_to.assign(as_index(ranks), 0);
  for (std::int64_t t = 0; t < plan.sources; ++t) {
    plan.rails.push_back(router.rail_token(as_index(t), me));
  }
  for (const Visit& visit : visits) {
    if (visit.rail == me) {
      plan.rails[as_index(visit.source)].choices = static_cast<std::int16_t>(visit.count);
      for (std::int64_t i = visit.first; i < visit.first + visit.count; ++i) {
        plan.rail_choices.push_back(router.rail_choice(visit.source, ways[as_index(i)]));
        plan.columns.push_back(ways[as_index(i)].column);
      }
    } else {
      ++plan.to_rails.sent[as_index(visit.rail)];
      plan.choices_to[as_index(visit.rail)] += visit.count;
    }
  }
  std::vector<std::int64_t> row = begins_of(plan.to_rails.sent);
  std::vector<std::int64_t> choice = begins_of(plan.choices_to);
  plan.to_rails.from.resize(as_index(row.back()));
  plan.tokens_sent.resize(as_index(row.back()));
  plan.choices_sent.resize(as_index(choice.back()));
  plan.choices_of_sent.resize(as_index(row.back()));
  const std::size_t own = plan.columns.size();
  plan.columns.resize(own + as_index(choice.back()));
  for (const Visit& visit : visits) {
    if (visit.rail == me) {
      continue;
    }
    const std::size_t at = as_index(row[as_index(visit.rail)]++);
    plan.to_rails.from[at] = static_cast<std::int32_t>(visit.source);
    plan.tokens_sent[at] = router.rail_token(as_index(visit.source), visit.rail);
    plan.tokens_sent[at].choices = static_cast<std::int16_t>(visit.count);
    plan.choices_of_sent[at] = plan.tokens_sent[at].choices;
    for (std::int64_t i = visit.first; i < visit.first + visit.count; ++i) {
      const std::size_t to = as_index(choice[as_index(visit.rail)]++);
      plan.choices_sent[to] = router.rail_choice(visit.source, ways[as_index(i)]);
      plan.columns[own + to] = ways[as_index(i)].column;
    }
  }
}

/// What a rank tells another: rows and choices that it sends there as to a rail, then for each rank
/// of the other's node (flat: for itself) the records and their choices that will come from there.
class Counts {
 public:
  Counts(Flow flow, const Topology& topology) : flow_(flow), topology_(topology) {}

  std::int64_t width(int rank) const {
    return 2 + 2 * (flow_ == Flow::flat
                        ? 1
                        : static_cast<std::int64_t>(
                              topology_.ranks_of_node(topology_.node(rank)).size()));
  }
  /// Among the counts for a rank that the rail serves.
  std::size_t records_of(int rail) const {
    return as_index(2 + 2 * (flow_ == Flow::flat ? 0 : topology_.local_index(rail)));
  }

  bool flat() const { return flow_ == Flow::flat; }

 private:
  Flow flow_;
  const Topology& topology_;
};

/// Fills in what every rank is told.
void count_for_ranks(const Counts& counts, std::span<const Way> ways, std::span<const Visit> visits,
                     int ranks, PlanTransfer& transfer) {
  const ExchangePlan& plan = transfer.plan;
  std::vector<std::int64_t> widths;
  for (int rank = 0; rank < ranks; ++rank) {
    widths.push_back(counts.width(rank));
  }
  transfer.begins_sent = begins_of(widths);
  transfer.sent.resize(as_index(transfer.begins_sent.back()));
  for (int rank = 0; rank < ranks; ++rank) {
    const std::size_t at = as_index(transfer.begins_sent[as_index(rank)]);
    transfer.sent[at] = plan.to_rails.sent[as_index(rank)];
    transfer.sent[at + 1] = plan.choices_to[as_index(rank)];
  }
  for (const Visit& visit : visits) {
    for (std::int64_t i = visit.first; i < visit.first + visit.count; ++i) {
      const std::int32_t rank = ways[as_index(i)].rank;
      const std::size_t at =
          as_index(transfer.begins_sent[as_index(rank)]) + counts.records_of(visit.rail);
      const bool begins = counts.flat() || i == visit.first || ways[as_index(i - 1)].rank != rank;
      transfer.sent[at] += begins ? 1 : 0;
      ++transfer.sent[at + 1];
    }
  }
}

}  // namespace

std::int64_t padded_row_count(std::int64_t rows) {
  std::int64_t unit = kRowAlignment;
  for (std::int64_t power = kFinePaddingLimit; power < rows; power *= 2) {
    unit *= 2;
  }
  return (rows + unit - 1) / unit * unit;
}

TransferPtr Exchange::begin_plan(const Context& context, const TokenRouting& routing) {
  check(routing.experts.dtype() == DType::i32 && routing.experts.shape().rank() == 2 &&
            routing.gates.shape() == routing.experts.shape() &&
            routing.experts.rows() == static_cast<std::int64_t>(routing.tokens.size()),
        "every token has its choices and gates");
  const Flow flow = this->flow();
  const int me = transport_.rank();
  const int ranks = transport_.size();
  auto transfer = std::make_unique<PlanTransfer>();
  ExchangePlan& plan = transfer->plan;
  plan.block = routing.block;
  plan.layer = routing.layer;
  plan.group = routing.group;
  plan.choices = static_cast<int>(routing.experts.cols());
  plan.finds_targets = flow == Flow::pivot;
  plan.to_pivots = flow == Flow::pivot && routing.group == 0;
  plan.sources = routing.experts.rows();
  plan.first_home_token = routing.first_home_token;
  plan.targets = plan.to_pivots ? 0 : routing.home_tokens;

  Router router(routing, options_, flow, me, unscored_ ? *unscored_ : placement_, topology_);
  router.choose(context);
  if (flow == Flow::pivot && routing.group == 0) {
    count(context, "cartesian_exchange_pivots_away_total", router.count_away());
  } else if (flow == Flow::pivot) {
    count(context, "cartesian_exchange_pivots_total", plan.sources);
    count(context, "cartesian_exchange_pivot_hits_total", router.count_hosted());
  }
  std::vector<Way> ways;
  std::vector<Visit> visits;
  router.list_visits(ways, visits);
  list_rails(router, ways, visits, me, ranks, plan);

  const Counts counts(flow, topology_);
  count_for_ranks(counts, ways, visits, ranks, *transfer);
  transfer->width = counts.width(me);
  transfer->received.resize(as_index(transfer->width * ranks));
  MessageGroup group{{"plan", plan.block}, {}, {}};
  for (int rank = 0; rank < ranks; ++rank) {
    const auto to =
        std::span<const std::int64_t>(transfer->sent)
            .subspan(as_index(transfer->begins_sent[as_index(rank)]), as_index(counts.width(rank)));
    const auto from = std::span(transfer->received)
                          .subspan(as_index(rank * transfer->width), as_index(transfer->width));
    if (rank == me) {
      std::ranges::copy(to, from.begin());
    } else {
      group.sends.push_back({rank, std::as_bytes(to)});
      group.recvs.push_back({rank, std::as_writable_bytes(from)});
    }
  }
  if (ranks > 1) {
    transfer->request = transport_.post(std::move(group));
  }
  return transfer;
}

ExchangePlan Exchange::finish_plan(TransferPtr transfer) {
  auto* step = dynamic_cast<PlanTransfer*>(transfer.get());
  check(step != nullptr, "finish_plan() finishes what begin_plan() began");
  if (step->request != nullptr) {
    step->request->wait();
  }
  ExchangePlan& plan = step->plan;
  const int me = transport_.rank();
  const auto ranks = as_index(transport_.size());
  const bool flat = options_.flow == Flow::flat;
  const auto node = topology_.ranks_of_node(topology_.node(me));
  plan.to_experts.received.assign(ranks, 0);
  plan.entries_from.assign(ranks, 0);
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    const auto counts = std::span<const std::int64_t>(step->received)
                            .subspan(rank * as_index(step->width), as_index(step->width));
    plan.to_rails.received.push_back(counts[0]);
    plan.choices_from.push_back(counts[1]);
    for (std::size_t i = 2; i < counts.size(); i += 2) {
      const std::size_t rail = flat ? rank : as_index(node[i / 2 - 1]);
      plan.to_experts.received[rail] += counts[i];
      plan.entries_from[rail] += counts[i + 1];
    }
  }
  const auto arrivals = std::reduce(plan.to_rails.received.begin(), plan.to_rails.received.end());
  plan.to_rails.to.resize(as_index(arrivals));
  std::iota(plan.to_rails.to.begin(), plan.to_rails.to.end(),
            static_cast<std::int32_t>(plan.sources));
  return std::move(plan);
}

}  // namespace cartesian
