#include "runtime/train/pivot_tally.h"

#include "base/index.h"
#include "base/messages.h"

namespace cartesian {

namespace {

template <class T>
std::span<const T> row_of(const Tensor& tensor, std::size_t row) {
  const auto cols = as_index(tensor.cols());
  return tensor.span<T>().subspan(row * cols, cols);
}

}  // namespace

PivotTally::PivotTally(const Placement& placement, const Topology& topology, Flow flow,
                       Metrics& metrics, std::int64_t every)
    : placement_(placement),
      topology_(topology),
      counts_(flow == Flow::pivot),
      every_(every),
      chosen_(metrics.counter("cartesian_pivot_rows_total{pivot=\"chosen\"}")),
      oracle_(metrics.counter("cartesian_pivot_rows_total{pivot=\"oracle\"}")) {}

void PivotTally::route(const RoutedChunk& chunk) {
  if (!counts_) {
    return;
  }
  for (std::size_t i = 0; i < chunk.tokens.size(); ++i) {
    const SourceToken& token = chunk.tokens[i];
    if (token.token % every_ != 0) {
      continue;
    }
    const TokenChoices a{.layer = chunk.layer,
                         .group = 0,
                         .origin = token.home,
                         .home = token.home,
                         .token = token.token,
                         .experts = row_of<std::int32_t>(chunk.choices[0].experts, i)};
    const auto b = row_of<std::int32_t>(chunk.choices[1].experts, i);
    a_ranks_.resize(a.experts.size());
    choose_replicas(a, placement_, topology_, a_ranks_);
    const int best = choose_pivot(Flow::pivot, a.layer, a.home, a.token,
                                  {.a = a.experts,
                                   .gates = row_of<float>(chunk.choices[0].gates, i),
                                   .a_ranks = a_ranks_,
                                   .b = b},
                                  placement_, topology_);
    chosen_.add(rows(a, b, chunk.pivots[i]));
    oracle_.add(rows(a, b, best));
  }
}

double PivotTally::rows(const TokenChoices& a, std::span<const std::int32_t> b, int pivot) {
  b_ranks_.resize(b.size());
  choose_replicas({.layer = a.layer,
                   .group = 1,
                   .origin = pivot,
                   .home = a.home,
                   .token = a.token,
                   .experts = b},
                  placement_, topology_, b_ranks_);
  double count = 0;
  for_each_message(Flow::pivot,
                   {.home = a.home, .pivot = pivot, .a_ranks = a_ranks_, .b_ranks = b_ranks_},
                   topology_, [&](TravelPhase, int from, int to) {
                     count += topology_.node(from) != topology_.node(to) ? 1 : 0;
                   });
  return count;
}

}  // namespace cartesian
