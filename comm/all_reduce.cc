#include <algorithm>

#include "base/check.h"
#include "comm/collectives.h"
#include "comm/reduce_rounds.h"

namespace cartesian {

namespace {

/// Up to this many bytes every rank sends everything to every other: one round instead of two.
constexpr std::size_t kSmallBytes = std::size_t{16} << 10;
/// Large arrays are reduced in segments of this many bytes, two in flight.
constexpr std::size_t kSegmentBytes = std::size_t{8} << 20;

/// Everybody's share of an array, piece by piece.
class SharePieces {
 public:
  SharePieces(std::span<float> data, const std::vector<std::size_t>& bounds)
      : data_(data),
        bounds_(bounds),
        piece_(aligned_elements<float>(kSegmentBytes / sizeof(float) / (bounds.size() - 1))) {
    check(bounds.front() == 0 && bounds.back() == data.size(), "shares make up the array");
    for (std::size_t r = 0; r + 1 < bounds.size(); ++r) {
      largest_ = std::max(largest_, bounds[r + 1] - bounds[r]);
    }
  }

  std::size_t rounds() const { return (largest_ + piece_ - 1) / piece_; }
  std::size_t largest() const { return std::min(piece_, largest_); }
  Pieces<float> operator()(std::size_t round) const {
    Pieces<float> pieces;
    for (std::size_t r = 0; r + 1 < bounds_.size(); ++r) {
      const std::size_t begin = std::min(bounds_[r] + round * piece_, bounds_[r + 1]);
      pieces.push_back(data_.subspan(begin, std::min(piece_, bounds_[r + 1] - begin)));
    }
    return pieces;
  }

 private:
  std::span<float> data_;
  const std::vector<std::size_t>& bounds_;
  std::size_t piece_;
  std::size_t largest_ = 0;
};

void check_member(const Transport& transport, const Team& team) {
  check(team.index_of(transport.rank()) >= 0, "a collective's caller belongs to its team");
}

template <class T>
void all_reduce(const Context& context, Transport& transport, const Team& team, std::span<T> data,
                CommPhase phase) {
  check_member(transport, team);
  if (team.ranks.size() == 1 || data.empty()) {
    return;
  }
  Rounds<T> rounds(transport, team, phase);
  if (data.size_bytes() <= kSmallBytes) {
    rounds.small(context, data);
  } else {
    const Segments<T> segments(data, team.ranks.size(), kSegmentBytes / sizeof(T));
    rounds.reduce(context, segments.rounds(), segments, segments.largest(), /*gather=*/true);
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

void reduce_scatter_sum(const Context& context, Transport& transport, const Shares& shares,
                        std::span<float> data, CommPhase phase) {
  check_member(transport, shares.team);
  if (shares.team.ranks.size() == 1 || data.empty()) {
    return;
  }
  const SharePieces pieces(data, shares.bounds);
  Rounds<float>(transport, shares.team, phase)
      .reduce(context, pieces.rounds(), pieces, pieces.largest(), /*gather=*/false);
}

void all_gather_shares(Transport& transport, const Shares& shares, std::span<float> data,
                       CommPhase phase) {
  check_member(transport, shares.team);
  const SharePieces pieces(data, shares.bounds);
  Rounds<float>(transport, shares.team, phase).gather(pieces.rounds(), pieces);
}

}  // namespace cartesian
