#include "comm/begun_all_reduce.h"

#include "comm/reduce_rounds.h"

namespace cartesian {

namespace {

/// The whole array in one round.
struct Round {
  Pieces<float> pieces;
  std::span<float> received;
};

Round round_of(const Transport& transport, const Team& team, std::span<float> data,
               std::byte* buffer) {
  Pieces<float> pieces = Segments<float>(data, team.ranks.size(), data.size())(0);
  const auto me = static_cast<std::size_t>(team.index_of(transport.rank()));
  const std::size_t received = pieces[me].size() * (team.ranks.size() - 1);
  return {std::move(pieces), {reinterpret_cast<float*>(buffer), received}};
}

}  // namespace

BegunAllReduce::BegunAllReduce(Transport& transport, BufferPool& buffers, Team team,
                               std::span<float> data, CommPhase phase)
    : transport_(transport), team_(std::move(team)), data_(data), phase_(phase) {
  if (team_.ranks.size() == 1 || data_.empty()) {
    return;
  }
  received_ = buffers.take(Segments<float>(data, team_.ranks.size(), data.size()).largest() *
                           (team_.ranks.size() - 1) * sizeof(float));
  const Round round = round_of(transport_, team_, data_, received_.data());
  request_ = Rounds<float>(transport_, team_, phase_).begin_scatter(round.pieces, round.received);
}

void BegunAllReduce::reduce(const Context& context) {
  if (request_ == nullptr) {
    return;
  }
  request_->wait();
  const Round round = round_of(transport_, team_, data_, received_.data());
  Rounds<float> rounds(transport_, team_, phase_);
  const auto me = static_cast<std::size_t>(team_.index_of(transport_.rank()));
  rounds.sum_own(context, round.pieces[me], round.received);
  request_ = rounds.begin_gather(round.pieces);
}

void BegunAllReduce::finish() {
  if (request_ != nullptr) {
    request_->wait();
    request_.reset();
    received_ = {};
  }
}

}  // namespace cartesian
