#include "comm/exchange.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>

#include "base/check.h"
#include "base/index.h"

namespace cartesian {

Exchange::Exchange(Transport& transport, const Topology& topology, const Placement& placement,
                   const ExchangeOptions& options)
    : transport_(transport),
      topology_(topology),
      placement_(placement),
      options_(options),
      ranks_by_node_(as_index(transport.size())) {
  check(topology.ranks() == transport.size() && placement.shape().ranks == transport.size(),
        "transport, topology and placement have the same ranks");
  placement_changed();
  std::iota(ranks_by_node_.begin(), ranks_by_node_.end(), 0);
  std::ranges::stable_sort(ranks_by_node_, {}, [&](int rank) { return topology.node(rank); });
}

void Exchange::placement_changed() {
  unscored_.reset();
  if (options_.pivot == PivotBy::gate && placement_.score_nodes() > 0) {
    unscored_ = placement_.without_pivot_scores();
  }
}

HopTransfer Exchange::new_transfer(const Context& context, const HopSizes& sizes) {
  const std::int64_t growths = staging_.growths();
  HopTransfer transfer(transport_, staging_, sizes);
  if (staging_.growths() > growths) {
    context.metrics.counter("cartesian_exchange_staging_growths_total")
        .add(static_cast<double>(staging_.growths() - growths));
  }
  count_rows(context, sizes.sent);
  return transfer;
}

void Exchange::count_rows(const Context& context,
                          std::span<const std::int64_t> rows_to_rank) const {
  const int me = transport_.rank();
  std::array<std::int64_t, 3> rows{};
  for (int rank = 0; rank < transport_.size(); ++rank) {
    const std::size_t scope = rank == me ? 0 : topology_.node(rank) == topology_.node(me) ? 1 : 2;
    rows.at(scope) += rows_to_rank[as_index(rank)];
  }
  constexpr std::array kScopes{"self", "intra", "inter"};
  for (std::size_t scope = 0; scope < rows.size(); ++scope) {
    if (rows.at(scope) > 0) {
      context.metrics
          .counter(fmt::format("cartesian_exchange_rows_total{{scope=\"{}\"}}", kScopes.at(scope)))
          .add(static_cast<double>(rows.at(scope)));
    }
  }
}

}  // namespace cartesian
