#include "runtime/train/gradient_sync.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "kernels/elementwise.h"

namespace cartesian {

namespace {

std::span<float> range(std::span<float> array, std::int64_t begin, std::int64_t end) {
  return array.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
}

Shares world_shares(const Transport& transport, const ParameterStore& parameters) {
  return {Team::world(transport), parameters.dense_bounds(transport.size())};
}

/// Experts that have the same replicas travel together: copied into one buffer, summed, copied
/// back.
void sync_replicas(const Context& context, Transport& transport, std::span<float> gradients,
                   const std::vector<int>& replicas, std::span<const ExpertRange* const> experts) {
  std::int64_t size = 0;
  for (const ExpertRange* expert : experts) {
    size += expert->end - expert->begin;
  }
  const ArenaScope scope(context.scratch);
  const std::span<float> buffer = context.scratch.tensor(DType::f32, {size}).span<float>();
  std::int64_t at = 0;
  for (const ExpertRange* expert : experts) {
    const std::int64_t end = at + expert->end - expert->begin;
    std::ranges::copy(range(gradients, expert->begin, expert->end), range(buffer, at, end).begin());
    at = end;
  }
  all_reduce_sum(context, transport, Team{replicas}, buffer, {"expert gradients"});
  at = 0;
  for (const ExpertRange* expert : experts) {
    const std::int64_t end = at + expert->end - expert->begin;
    std::ranges::copy(range(buffer, at, end), range(gradients, expert->begin, expert->end).begin());
    at = end;
  }
}

}  // namespace

void sync_gradients(const Context& context, Transport& transport, ParameterStore& parameters) {
  const std::span<float> gradients = parameters.gradients();
  const std::span<float> dense = range(gradients, 0, parameters.dense_size());
  constexpr CommPhase kPhase{"dense gradients"};
  if (parameters.sharded()) {
    reduce_scatter_sum(context, transport, world_shares(transport, parameters), dense, kPhase);
  } else {
    all_reduce_sum(context, transport, Team::world(transport), dense, kPhase);
  }
  // In order of the replica sets, which is the same on every rank, so that no two ranks wait for
  // each other crosswise.
  std::map<std::vector<int>, std::vector<const ExpertRange*>> by_replicas;
  for (const ExpertRange& expert : parameters.experts()) {
    if (expert.replicas.size() > 1) {
      by_replicas[expert.replicas].push_back(&expert);
    }
  }
  for (const auto& [replicas, experts] : by_replicas) {
    sync_replicas(context, transport, gradients, replicas, experts);
  }
}

void gather_weights(Transport& transport, ParameterStore& parameters) {
  if (parameters.sharded()) {
    all_gather_shares(transport, world_shares(transport, parameters),
                      range(parameters.weights(), 0, parameters.dense_size()), {"dense weights"});
  }
}

double global_gradient_norm(const Context& context, Transport& transport,
                            ParameterStore& parameters) {
  const std::span<float> gradients = parameters.gradients();
  const auto squares = [&](std::int64_t begin, std::int64_t end) {
    return sum_of_squares(context, Tensor(gradients.data() + begin, {end - begin}));
  };
  // Every rank sums its share of the dense part, sharded or not, so that the bits are the same.
  const ElementRange share = parameters.dense_share(transport.rank(), transport.size());
  double sum = squares(share.begin, share.end);
  for (const ExpertRange& expert : parameters.experts()) {
    if (expert.replicas.front() == transport.rank()) {
      sum += squares(expert.begin, expert.end);
    }
  }
  all_reduce_sum(context, transport, Team::world(transport), std::span(&sum, 1), {"gradient norm"});
  return std::sqrt(sum);
}

}  // namespace cartesian
