#include "planner/layer_schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/index.h"

namespace cartesian {

namespace {

/// Adds up rows that have chunk, stages and ranks in common.
class MessageSum {
 public:
  void add(int chunk, std::pair<Stage, Stage> stages, int from, int to) {
    sums_.push_back({pack(chunk, stages, from, to), 1});
    if (sums_.size() >= limit_) {
      merge();
      limit_ = std::max(kLeast, 2 * sums_.size());
    }
  }

  /// By chunk, stages, sender, receiver.
  std::vector<LayerSchedule::Message> take() {
    merge();
    std::vector<LayerSchedule::Message> messages;
    messages.reserve(sums_.size());
    for (const Sum& sum : sums_) {
      messages.push_back(unpack(sum));
    }
    return messages;
  }

 private:
  static constexpr std::size_t kLeast = std::size_t{1} << 22U;
  static constexpr unsigned kRankBits = 20;
  static constexpr unsigned kStageBits = 4;
  static constexpr std::uint64_t kRankMask = (std::uint64_t{1} << kRankBits) - 1;
  static constexpr std::uint64_t kStageMask = (std::uint64_t{1} << kStageBits) - 1;

  struct Sum {
    std::uint64_t key;
    std::uint32_t rows;
  };

  static std::uint64_t pack(int chunk, std::pair<Stage, Stage> stages, int from, int to) {
    auto key = static_cast<std::uint64_t>(chunk);
    key = key << kStageBits | static_cast<std::uint64_t>(stages.first);
    key = key << kStageBits | static_cast<std::uint64_t>(stages.second);
    key = key << kRankBits | static_cast<std::uint64_t>(from);
    return key << kRankBits | static_cast<std::uint64_t>(to);
  }

  static LayerSchedule::Message unpack(const Sum& sum) {
    LayerSchedule::Message message;
    std::uint64_t key = sum.key;
    message.rows = sum.rows;
    message.to = static_cast<std::int32_t>(key & kRankMask);
    key >>= kRankBits;
    message.from = static_cast<std::int32_t>(key & kRankMask);
    key >>= kRankBits;
    message.received = static_cast<Stage>(key & kStageMask);
    key >>= kStageBits;
    message.sent = static_cast<Stage>(key & kStageMask);
    message.chunk = static_cast<std::uint16_t>(key >> kStageBits);
    return message;
  }

  void merge() {
    std::ranges::sort(sums_, {}, &Sum::key);
    std::size_t kept = 0;
    for (const Sum& sum : sums_) {
      if (kept > 0 && sums_[kept - 1].key == sum.key) {
        sums_[kept - 1].rows += sum.rows;
      } else {
        sums_[kept++] = sum;
      }
    }
    sums_.resize(kept);
  }

  std::size_t limit_ = kLeast;
  std::vector<Sum> sums_;
};

Stage later(Stage stage, int by) { return static_cast<Stage>(static_cast<int>(stage) + by); }

/// At the end of which stage a row is sent, and in which it is received.
std::pair<Stage, Stage> stages_of(Flow flow, const TokenRoute& route, TravelPhase phase, int from,
                                  int to, bool inter) {
  const bool a = phase == TravelPhase::a_dispatch || phase == TravelPhase::a_combine;
  const Stage begin = a ? Stage::home : Stage::pivot;
  const Stage relay = later(begin, 1);
  const Stage experts = later(begin, 2);
  const Stage gather = later(begin, 3);
  const Stage end = later(begin, 4);
  const bool by_rails = inter && flow != Flow::flat;
  if (phase == TravelPhase::a_dispatch || phase == TravelPhase::b_dispatch) {
    const int centre = a ? route.home : route.pivot;
    return {from == centre ? begin : relay, by_rails ? relay : experts};
  }
  const int centre = a ? route.pivot : route.home;
  return {by_rails ? gather : experts, to == centre ? end : gather};
}

}  // namespace

TokenSplit split_tokens(const RoutingTrace& trace, int ranks, int chunks) {
  TokenSplit split{.home = trace.home, .chunk = {}, .chunks = chunks};
  for (std::int64_t token = 0; token < trace.tokens && trace.home.empty(); ++token) {
    split.home.push_back(static_cast<std::int32_t>(token * ranks / trace.tokens));
  }
  std::vector<std::int64_t> count(as_index(ranks));
  for (std::size_t token = 0; token < split.home.size(); ++token) {
    if (split.home[token] < 0 || split.home[token] >= ranks) {
      throw ConfigError(fmt::format("the trace has token {} on rank {}, but there are {} ranks",
                                    token, split.home[token], ranks));
    }
    ++count[as_index(split.home[token])];
  }
  std::vector<std::int64_t> seen(as_index(ranks));
  for (const std::int32_t home : split.home) {
    split.chunk.push_back(
        static_cast<std::int32_t>(seen[as_index(home)]++ * chunks / count[as_index(home)]));
  }
  return split;
}

LayerSchedule::LayerSchedule(const LayerTrace& layer, int index, const TokenSplit& split,
                             const Placement& placement, const Topology& topology, Flow flow,
                             PivotRule rule)
    : groups_(static_cast<int>(layer.groups.size())),
      chunks_(split.chunks),
      ranks_(topology.ranks()),
      work_(as_index(split.chunks) * as_index(topology.ranks())) {
  check(chunks_ >= 1 && chunks_ <= kMostChunks, "as many chunks as messages have numbers for");
  TokenRouter router(layer, index, placement, topology, flow, rule);
  MessageSum sum;
  for (std::int64_t token = 0; token < layer.tokens; ++token) {
    const int chunk = split.chunk[as_index(token)];
    const TokenRoute route = router.route(token, split.home[as_index(token)]);
    for_each_message(router.flow(), route, topology, [&](TravelPhase phase, int from, int to) {
      const bool inter = topology.node(from) != topology.node(to);
      sum.add(chunk, stages_of(router.flow(), route, phase, from, to, inter), from, to);
    });
    add_work(route, router.flow(), chunk, topology);
  }
  messages_ = sum.take();
  sent_ = make_index(true);
  received_ = make_index(false);
}

std::size_t LayerSchedule::cell(int chunk, int rank) const {
  return as_index(chunk) * as_index(ranks_) + as_index(rank);
}

std::size_t LayerSchedule::cell(int chunk, Stage stage, int rank) const {
  return (as_index(chunk) * as_index(stages()) + as_index(static_cast<int>(stage))) *
             as_index(ranks_) +
         as_index(rank);
}

std::span<const std::uint32_t> LayerSchedule::at(const Index& index, int chunk, Stage stage,
                                                 int rank) const {
  const std::size_t i = cell(chunk, stage, rank);
  return std::span(index.numbers).subspan(index.first[i], index.first[i + 1] - index.first[i]);
}

void LayerSchedule::add_work(const TokenRoute& route, Flow flow, int chunk,
                             const Topology& topology) {
  for (const std::int32_t rank : route.a_ranks) {
    if (rank >= 0) {
      ++work_[cell(chunk, rank)].experts[0];
    }
  }
  ++work_[cell(chunk, route.pivot)].shared[0];
  if (groups_ < 2) {
    return;
  }
  for (const std::int32_t rank : route.b_ranks) {
    if (rank >= 0) {
      ++work_[cell(chunk, rank)].experts[1];
    }
  }
  ++work_[cell(chunk, route.pivot)].pivots;
  const int finisher = choose_finisher(flow, route.home, route.pivot, route.b_ranks, topology);
  ++work_[cell(chunk, finisher)].shared[1];
}

LayerSchedule::Index LayerSchedule::make_index(bool of_senders) const {
  Index index;
  const auto cell_of = [&](const Message& message) {
    return of_senders ? cell(message.chunk, message.sent, message.from)
                      : cell(message.chunk, message.received, message.to);
  };
  index.first.resize(as_index(chunks_) * as_index(stages()) * as_index(ranks_) + 1);
  for (const Message& message : messages_) {
    ++index.first[cell_of(message) + 1];
  }
  std::partial_sum(index.first.begin(), index.first.end(), index.first.begin());
  index.numbers.resize(messages_.size());
  std::vector<std::uint32_t> next(index.first.begin(), index.first.end() - 1);
  for (std::size_t i = 0; i < messages_.size(); ++i) {
    index.numbers[next[cell_of(messages_[i])]++] = static_cast<std::uint32_t>(i);
  }
  const auto distance = [&](std::uint32_t number) {
    const Message& message = messages_[number];
    const int ahead = of_senders ? message.to - message.from : message.from - message.to;
    return (ahead + ranks_) % ranks_;
  };
  for (std::size_t i = 0; i + 1 < index.first.size(); ++i) {
    std::stable_sort(index.numbers.begin() + index.first[i],
                     index.numbers.begin() + index.first[i + 1],
                     [&](std::uint32_t a, std::uint32_t b) { return distance(a) < distance(b); });
  }
  return index;
}

}  // namespace cartesian
