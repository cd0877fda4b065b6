#include "runtime/train/gradient_sync.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>

#include "kernels/elementwise.h"

namespace cartesian {

namespace {

std::span<float> range(std::span<float> array, std::int64_t begin, std::int64_t end) {
  return array.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
}

/// Of the dense part.
Shares world_shares(const Transport& transport, const ParameterStore& parameters) {
  return {Team::world(transport), parameters.dense_bounds(transport.size())};
}

/// The same of a range of it.
Shares world_shares(const Transport& transport, const ParameterStore& parameters,
                    const ElementRange& range) {
  Shares shares = world_shares(transport, parameters);
  const auto begin = static_cast<std::size_t>(range.begin);
  const auto end = static_cast<std::size_t>(range.end);
  for (std::size_t& bound : shares.bounds) {
    bound = std::clamp(bound, begin, end) - begin;
  }
  return shares;
}

/// What lies between `ranges` in [0, size).
std::vector<ElementRange> rest_of(std::vector<ElementRange> ranges, std::int64_t size) {
  std::ranges::sort(ranges, {}, &ElementRange::begin);
  std::vector<ElementRange> rest;
  std::int64_t at = 0;
  for (const ElementRange& begun : ranges) {
    if (begun.begin > at) {
      rest.push_back({at, begun.begin});
    }
    at = std::max(at, begun.end);
  }
  if (at < size) {
    rest.push_back({at, size});
  }
  return rest;
}

std::int64_t elements_of(const std::vector<const ExpertRange*>& experts) {
  std::int64_t size = 0;
  for (const ExpertRange* expert : experts) {
    size += expert->end - expert->begin;
  }
  return size;
}

}  // namespace

void GradientSync::begin(const Context& context, const ElementRange& dense, int layer) {
  advance(context);  // what is on its way has had the time of a block to travel
  Part& part = parts_.emplace_back();
  if (dense.size() > 0) {
    begin_dense(dense, part);
  }
  begin_replicas(layer, part);
}

void GradientSync::begin_dense(const ElementRange& dense, Part& part) {
  const Shares shares = parameters_.sharded() ? world_shares(transport_, parameters_, dense)
                                              : Shares{Team::world(transport_), {}};
  part.dense = std::make_unique<BegunSum>(transport_, topology_, buffers_, shares,
                                          range(parameters_.gradients(), dense.begin, dense.end),
                                          CommPhase{"dense gradients"});
  begun_.push_back(dense);
}

void GradientSync::begin_replicas(int layer, Part& part) {
  // In order of the replica sets, which is the same on every rank, so that no two ranks wait for
  // each other crosswise.
  std::map<std::vector<int>, std::vector<const ExpertRange*>> by_replicas;
  for (const ExpertRange& expert : parameters_.experts()) {
    if (expert.layer == layer && expert.replicas.size() > 1) {
      by_replicas[expert.replicas].push_back(&expert);
    }
  }
  for (auto& [ranks, experts] : by_replicas) {
    const auto size = static_cast<std::size_t>(elements_of(experts));
    Replicas& replicas = part.replicas.emplace_back();
    replicas.buffer = buffers_.take(size * sizeof(float));
    const std::span<float> buffer(reinterpret_cast<float*>(replicas.buffer.data()), size);
    auto at = buffer.begin();
    for (const ExpertRange* expert : experts) {
      at = std::ranges::copy(range(parameters_.gradients(), expert->begin, expert->end), at).out;
    }
    replicas.experts = std::move(experts);
    replicas.sum =
        std::make_unique<BegunSum>(transport_, topology_, buffers_, Shares{Team{ranks}, {}}, buffer,
                                   CommPhase{"expert gradients", layer});
  }
  begun_layers_.insert(layer);
}

void GradientSync::advance(const Context& context) {
  for (auto part = parts_.begin(); part != parts_.end();) {
    bool done = true;
    const auto step = [&](BegunSum& sum) {
      sum.advance(context);
      done = done && sum.done();
    };
    if (part->dense) {
      step(*part->dense);
    }
    for (Replicas& replicas : part->replicas) {
      step(*replicas.sum);
    }
    if (done) {
      end(*part);
    }
    part = done ? parts_.erase(part) : std::next(part);
  }
}

void GradientSync::end(Part& part) {
  for (Replicas& replicas : part.replicas) {
    const float* at = reinterpret_cast<const float*>(replicas.buffer.data());
    for (const ExpertRange* expert : replicas.experts) {
      std::copy_n(at, expert->end - expert->begin, parameters_.gradients().begin() + expert->begin);
      at += expert->end - expert->begin;
    }
  }
}

void GradientSync::finish(const Context& context) {
  std::set<int> layers;
  for (const ExpertRange& expert : parameters_.experts()) {
    if (!begun_layers_.contains(expert.layer)) {
      layers.insert(expert.layer);
    }
  }
  for (const int layer : layers) {
    begin(context, {}, layer);
  }
  while (!parts_.empty()) {
    advance(context);
  }
  constexpr CommPhase kPhase{"dense gradients"};
  for (const ElementRange& rest : rest_of(begun_, parameters_.dense_size())) {
    const std::span<float> gradients = range(parameters_.gradients(), rest.begin, rest.end);
    if (parameters_.sharded()) {
      reduce_scatter_sum(context, transport_, world_shares(transport_, parameters_, rest),
                         gradients, kPhase);
    } else {
      all_reduce_sum(context, transport_, Team::world(transport_), gradients, kPhase);
    }
  }
  begun_.clear();
  begun_layers_.clear();
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
