#pragma once
// Internal to comm/all_reduce.cc and begun_sum.cc: arrays that pass a team in rounds, of which
// every member sums its piece, in rank order.

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "comm/collectives.h"
#include "kernels/parallel.h"

namespace cartesian {

/// Pieces begin on cache lines.
inline constexpr std::size_t kPieceAlignment = 64;

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

/// Of each member of a team the elements that it sums, or has.
template <class T>
using Pieces = std::vector<std::span<T>>;

template <class T>
std::size_t aligned_elements(std::size_t elements) {
  const std::size_t unit = kPieceAlignment / sizeof(T);
  return (elements + unit - 1) / unit * unit;
}

/// An array's way through a team in rounds; in round i the members have pieces_of(i).
template <class T>
class Rounds {
 public:
  Rounds(Transport& transport, const Team& team, CommPhase phase)
      : transport_(transport),
        team_(team),
        phase_(phase),
        size_(team.ranks.size()),
        me_(static_cast<std::size_t>(team.index_of(transport.rank()))) {}

  void small(const Context& context, std::span<T> data) {
    const ArenaScope scope(context.scratch);
    MessageGroup group{phase_, {}, {}};
    std::vector<const T*> parts(size_);
    for (std::size_t r = 0; r < size_; ++r) {
      if (r == me_) {
        parts[r] = data.data();
        continue;
      }
      const std::span<T> part = scratch(context, data.size());
      parts[r] = part.data();
      group.sends.push_back({team_.ranks[r], bytes_of(data)});
      group.recvs.push_back({team_.ranks[r], bytes_of(part)});
    }
    transport_.exchange(std::move(group));
    sum_in_order<T>(context, parts, data);
  }

  /// Sums every piece on its member, two rounds in flight, and with `gather` sends the sums to all.
  /// No piece is larger than `largest`.
  template <class PiecesOf>
  void reduce(const Context& context, std::size_t rounds, const PiecesOf& pieces_of,
              std::size_t largest, bool gather) {
    const ArenaScope scope(context.scratch);
    std::array<std::span<T>, 2> received;
    for (std::span<T>& buffer : received) {
      buffer = scratch(context, largest * (size_ - 1));
    }
    std::unique_ptr<Request> gathered;
    std::unique_ptr<Request> scattered = begin_scatter(pieces_of(0), received[0]);
    for (std::size_t round = 0; round < rounds; ++round) {
      std::unique_ptr<Request> next;
      if (round + 1 < rounds) {
        next = begin_scatter(pieces_of(round + 1), received[(round + 1) % 2]);
      }
      scattered->wait();
      const Pieces<T> pieces = pieces_of(round);
      sum_own(context, pieces[me_], received[round % 2]);
      if (gathered) {
        gathered->wait();
      }
      if (gather) {
        gathered = begin_gather(pieces);
      }
      scattered = std::move(next);
    }
    if (gathered) {
      gathered->wait();
    }
  }

  /// Every member's pieces become what they are there, two rounds in flight.
  template <class PiecesOf>
  void gather(std::size_t rounds, const PiecesOf& pieces_of) {
    std::unique_ptr<Request> last;
    for (std::size_t round = 0; round < rounds; ++round) {
      std::unique_ptr<Request> now = begin_gather(pieces_of(round));
      if (last) {
        last->wait();
      }
      last = std::move(now);
    }
    if (last) {
      last->wait();
    }
  }

 private:
  /// Every member is sent its piece; `received` takes the others' versions of mine, in rank order.
  std::unique_ptr<Request> begin_scatter(const Pieces<T>& pieces, std::span<T> received) {
    MessageGroup group{phase_, {}, {}};
    const std::size_t mine = pieces[me_].size();
    std::size_t slot = 0;
    for (std::size_t r = 0; r < size_; ++r) {
      if (r != me_) {
        group.sends.push_back({team_.ranks[r], bytes_of(pieces[r])});
        group.recvs.push_back({team_.ranks[r], bytes_of(received.subspan(slot * mine, mine))});
        ++slot;
      }
    }
    return transport_.post(std::move(group));
  }

  void sum_own(const Context& context, std::span<T> mine, std::span<T> received) {
    std::vector<const T*> parts(size_);
    std::size_t slot = 0;
    for (std::size_t r = 0; r < size_; ++r) {
      parts[r] = r == me_ ? mine.data() : received.data() + mine.size() * slot++;
    }
    sum_in_order<T>(context, parts, mine);
  }

  std::unique_ptr<Request> begin_gather(const Pieces<T>& pieces) {
    MessageGroup group{phase_, {}, {}};
    for (std::size_t r = 0; r < size_; ++r) {
      if (r != me_) {
        group.sends.push_back({team_.ranks[r], bytes_of(pieces[me_])});
        group.recvs.push_back({team_.ranks[r], bytes_of(pieces[r])});
      }
    }
    return transport_.post(std::move(group));
  }

  static std::span<T> scratch(const Context& context, std::size_t count) {
    return {static_cast<T*>(context.scratch.allocate(count * sizeof(T))), count};
  }

  Transport& transport_;
  const Team& team_;
  CommPhase phase_;
  std::size_t size_;
  std::size_t me_;
};

/// An array in segments, each split evenly over the team; the last pieces may be short or empty.
template <class T>
class Segments {
 public:
  /// `segment`: elements.
  Segments(std::span<T> data, std::size_t members, std::size_t segment)
      : data_(data), members_(members), segment_(std::min(data.size(), segment)) {}

  std::size_t rounds() const { return (data_.size() + segment_ - 1) / segment_; }
  std::size_t largest() const { return piece_elements(segment_); }
  Pieces<T> operator()(std::size_t round) const {
    const std::size_t begin = round * segment_;
    const auto segment = data_.subspan(begin, std::min(segment_, data_.size() - begin));
    const std::size_t length = piece_elements(segment.size());
    Pieces<T> pieces;
    for (std::size_t r = 0; r < members_; ++r) {
      const std::size_t first = std::min(r * length, segment.size());
      pieces.push_back(segment.subspan(first, std::min(length, segment.size() - first)));
    }
    return pieces;
  }

 private:
  std::size_t piece_elements(std::size_t elements) const {
    return aligned_elements<T>((elements + members_ - 1) / members_);
  }
  std::span<T> data_;
  std::size_t members_;
  std::size_t segment_;
};

}  // namespace cartesian
