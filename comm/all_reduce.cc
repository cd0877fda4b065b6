#include <algorithm>
#include <array>
#include <cstring>

#include "base/check.h"
#include "comm/collectives.h"
#include "kernels/parallel.h"

namespace cartesian {

namespace {

/// Up to this many bytes every rank sends everything to every other: one round instead of two.
constexpr std::size_t kSmallBytes = std::size_t{16} << 10;
/// Large arrays are reduced in segments of this many bytes, two in flight.
constexpr std::size_t kSegmentBytes = std::size_t{8} << 20;
/// Chunks begin on cache lines.
constexpr std::size_t kChunkAlignment = 64;

template <class T>
std::span<std::byte> bytes_of(std::span<T> data) {
  return std::as_writable_bytes(data);
}

/// sum[i] = the parts' sum in rank order. parts[r] may be `sum` itself.
template <class T>
void sum_in_order(const Context& context, const std::vector<const T*>& parts, std::span<T> sum) {
  constexpr std::int64_t kBlock = 1024;  // stays in the first-level cache
  const auto elements = static_cast<std::int64_t>(sum.size());
  parallel_blocks(context, elements, kBlock, [&](std::int64_t begin, std::int64_t end) {
    std::array<T, kBlock> accumulator;
    const auto count = static_cast<std::size_t>(end - begin);
    std::memcpy(accumulator.data(), parts.front() + begin, count * sizeof(T));
    for (std::size_t r = 1; r < parts.size(); ++r) {
      const T* part = parts[r] + begin;
      for (std::size_t i = 0; i < count; ++i) {
        accumulator[i] += part[i];
      }
    }
    std::memcpy(sum.data() + begin, accumulator.data(), count * sizeof(T));
  });
}

/// One team's reduction of one array.
template <class T>
class AllReduce {
 public:
  AllReduce(const Context& context, Transport& transport, const Team& team, CommPhase phase)
      : context_(context),
        transport_(transport),
        team_(team),
        phase_(phase),
        size_(team.ranks.size()),
        me_(static_cast<std::size_t>(team.index_of(transport.rank()))) {}

  void small(std::span<T> data) {
    const ArenaScope scope(context_.scratch);
    MessageGroup group{phase_, {}, {}};
    std::vector<const T*> parts(size_);
    for (std::size_t r = 0; r < size_; ++r) {
      if (r == me_) {
        parts[r] = data.data();
        continue;
      }
      const std::span<T> part = scratch(data.size());
      parts[r] = part.data();
      group.sends.push_back({team_.ranks[r], bytes_of(data)});
      group.recvs.push_back({team_.ranks[r], bytes_of(part)});
    }
    transport_.exchange(std::move(group));
    sum_in_order<T>(context_, parts, data);
  }

  void large(std::span<T> data) {
    const ArenaScope scope(context_.scratch);
    const std::size_t segment = std::min(data.size(), kSegmentBytes / sizeof(T));
    const std::size_t part = chunk_elements(segment);
    std::array<std::span<T>, 2> received;
    for (std::span<T>& buffer : received) {
      buffer = scratch(part * (size_ - 1));
    }

    std::unique_ptr<Request> gather;
    std::unique_ptr<Request> scatter = begin_scatter(data.first(segment), received[0]);
    std::size_t turn = 0;
    for (std::size_t begin = 0; begin < data.size(); begin += segment, turn ^= 1) {
      const auto now = data.subspan(begin, std::min(segment, data.size() - begin));
      const auto rest = data.subspan(begin + now.size());
      std::unique_ptr<Request> next_scatter;
      if (!rest.empty()) {
        next_scatter =
            begin_scatter(rest.first(std::min(segment, rest.size())), received[turn ^ 1]);
      }
      scatter->wait();
      reduce_own_chunk(now, received[turn]);
      if (gather) {
        gather->wait();
      }
      gather = begin_gather(now);
      scatter = std::move(next_scatter);
    }
    gather->wait();
  }

 private:
  std::span<T> scratch(std::size_t count) {
    return {static_cast<T*>(context_.scratch.allocate(count * sizeof(T))), count};
  }
  std::size_t chunk_elements(std::size_t elements) const {
    const std::size_t unit = kChunkAlignment / sizeof(T);
    return ((elements + size_ - 1) / size_ + unit - 1) / unit * unit;
  }
  /// The part of a segment that team member r sums; the last ones may be short or empty.
  std::span<T> chunk(std::span<T> segment, std::size_t r) const {
    const std::size_t length = chunk_elements(segment.size());
    const std::size_t begin = std::min(r * length, segment.size());
    return segment.subspan(begin, std::min(length, segment.size() - begin));
  }

  /// Every member is sent its chunk; `received` takes the others' versions of mine, in rank order.
  std::unique_ptr<Request> begin_scatter(std::span<T> segment, std::span<T> received) {
    MessageGroup group{phase_, {}, {}};
    const std::size_t mine = chunk(segment, me_).size();
    std::size_t slot = 0;
    for (std::size_t r = 0; r < size_; ++r) {
      if (r != me_) {
        group.sends.push_back({team_.ranks[r], bytes_of(chunk(segment, r))});
        group.recvs.push_back({team_.ranks[r], bytes_of(received.subspan(slot * mine, mine))});
        ++slot;
      }
    }
    return transport_.post(std::move(group));
  }

  void reduce_own_chunk(std::span<T> segment, std::span<T> received) {
    const std::span<T> mine = chunk(segment, me_);
    std::vector<const T*> parts(size_);
    std::size_t slot = 0;
    for (std::size_t r = 0; r < size_; ++r) {
      parts[r] = r == me_ ? mine.data() : received.data() + mine.size() * slot++;
    }
    sum_in_order<T>(context_, parts, mine);
  }

  std::unique_ptr<Request> begin_gather(std::span<T> segment) {
    MessageGroup group{phase_, {}, {}};
    for (std::size_t r = 0; r < size_; ++r) {
      if (r != me_) {
        group.sends.push_back({team_.ranks[r], bytes_of(chunk(segment, me_))});
        group.recvs.push_back({team_.ranks[r], bytes_of(chunk(segment, r))});
      }
    }
    return transport_.post(std::move(group));
  }

  const Context& context_;
  Transport& transport_;
  const Team& team_;
  CommPhase phase_;
  std::size_t size_;
  std::size_t me_;
};

template <class T>
void all_reduce(const Context& context, Transport& transport, const Team& team, std::span<T> data,
                CommPhase phase) {
  check(team.index_of(transport.rank()) >= 0, "a collective's caller belongs to its team");
  if (team.ranks.size() == 1 || data.empty()) {
    return;
  }
  AllReduce<T> reduction(context, transport, team, phase);
  if (data.size_bytes() <= kSmallBytes) {
    reduction.small(data);
  } else {
    reduction.large(data);
  }
}

}  // namespace

void all_reduce_sum(const Context& context, Transport& transport, const Team& team,
                    std::span<float> data, CommPhase phase) {
  all_reduce(context, transport, team, data, phase);
}

void all_reduce_sum(const Context& context, Transport& transport, const Team& team,
                    std::span<double> data, CommPhase phase) {
  all_reduce(context, transport, team, data, phase);
}

}  // namespace cartesian
