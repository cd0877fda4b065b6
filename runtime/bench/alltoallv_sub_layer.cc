#include "runtime/bench/alltoallv_sub_layer.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "base/index.h"
#include "base/itinerary.h"
#include "runtime/model/rail_rows.h"

namespace cartesian {

namespace {

constexpr std::size_t kAlignment = 64;  // parts begin on cache lines

std::size_t round_up(std::size_t bytes, std::size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

/// rank * slots + slot of every choice of the rank's tokens, replicas being chosen from home.
std::vector<std::int32_t> slots_of_choices(const ExchangeCase& measured, int rank, int group,
                                           std::size_t slots) {
  std::vector<std::int32_t> result;
  const std::int64_t first = measured.first_token(rank);
  std::vector<std::int32_t> ranks(as_index(measured.choices(group).choices));
  for (std::int64_t token = first; token < first + measured.tokens; ++token) {
    const auto chosen = measured.chosen(group, token);
    const std::vector<std::int32_t> experts(chosen.begin(), chosen.end());
    choose_replicas({.layer = measured.layer,
                     .group = group,
                     .origin = rank,
                     .home = rank,
                     .token = token,
                     .experts = experts},
                    measured.placement, measured.topology, ranks);
    for (std::size_t j = 0; j < experts.size(); ++j) {
      const int slot =
          ranks[j] < 0 ? -1 : measured.placement.slot(measured.layer, group, ranks[j], experts[j]);
      result.push_back(slot < 0 ? -1 : ranks[j] * static_cast<std::int32_t>(slots) + slot);
    }
  }
  return result;
}

}  // namespace

RankParts::RankParts(std::span<const std::int64_t> rows, std::size_t row_bytes)
    : rows_(rows.begin(), rows.end()), row_bytes_(row_bytes) {
  for (const std::int64_t n : rows) {
    begins_.push_back(bytes_);
    bytes_ = round_up(bytes_ + scalars_at(n) + as_index(n) * sizeof(float), kAlignment);
  }
  if (bytes_ / MpiAlltoallv::kUnit > std::numeric_limits<int>::max()) {
    throw ConfigError(
        "these rows are more than the 8 GiB that one MPI_Alltoallv can send: take "
        "fewer tokens, or a smaller hidden size");
  }
}

std::size_t RankParts::scalars_at(std::int64_t rows) const {
  return round_up(as_index(rows) * row_bytes_, sizeof(float));
}

MpiAlltoallv::Parts RankParts::parts(bool with_scalars) const {
  MpiAlltoallv::Parts parts;
  for (std::size_t rank = 0; rank < rows_.size(); ++rank) {
    const std::size_t scalars = with_scalars ? as_index(rows_[rank]) * sizeof(float) : 0;
    parts.begins.push_back(static_cast<int>(begins_[rank] / MpiAlltoallv::kUnit));
    parts.counts.push_back(
        static_cast<int>((scalars_at(rows_[rank]) + scalars) / MpiAlltoallv::kUnit));
  }
  return parts;
}

std::vector<std::byte*> RankParts::rows(std::byte* buffer) const {
  std::vector<std::byte*> addresses;
  for (std::size_t rank = 0; rank < rows_.size(); ++rank) {
    for (std::int64_t i = 0; i < rows_[rank]; ++i) {
      addresses.push_back(buffer + begins_[rank] + as_index(i) * row_bytes_);
    }
  }
  return addresses;
}

std::vector<float*> RankParts::scalars(std::byte* buffer) const {
  std::vector<float*> addresses;
  for (std::size_t rank = 0; rank < rows_.size(); ++rank) {
    auto* first = reinterpret_cast<float*>(buffer + begins_[rank] + scalars_at(rows_[rank]));
    for (std::int64_t i = 0; i < rows_[rank]; ++i) {
      addresses.push_back(first + i);
    }
  }
  return addresses;
}

AlltoallvSubLayer::AlltoallvSubLayer(const Bench& bench, int group)
    : bench_(bench),
      group_(group),
      experts_(bench.measured.placement, bench.measured.layer, group, bench.rank) {
  const ExchangeCase& measured = bench.measured;
  for (int rank = 0; rank < measured.topology.ranks(); ++rank) {
    slots_ = std::max(slots_, measured.placement.experts_on(measured.layer, group, rank).size());
  }
  slot_of_ = slots_of_choices(measured, bench.rank, group, slots_);
}

/// A counting sort of the choices by rank and slot.
void AlltoallvSubLayer::order_by_expert() {
  const auto ranks = as_index(bench_.measured.topology.ranks());
  const auto k = as_index(bench_.measured.choices(group_).choices);
  sent_counts_.assign(ranks * slots_, 0);
  for (const std::int32_t slot : slot_of_) {
    if (slot >= 0) {
      ++sent_counts_[as_index(slot)];
    }
  }
  std::vector<std::int64_t> next(sent_counts_.size());
  std::exclusive_scan(sent_counts_.begin(), sent_counts_.end(), next.begin(), std::int64_t{0});
  rows_sent_.assign(ranks, 0);
  for (std::size_t i = 0; i < sent_counts_.size(); ++i) {
    rows_sent_[i / slots_] += sent_counts_[i];
  }
  row_of_.assign(slot_of_.size(), -1);
  token_of_.resize(as_index(std::reduce(rows_sent_.begin(), rows_sent_.end())));
  for (std::size_t i = 0; i < slot_of_.size(); ++i) {
    if (slot_of_[i] >= 0) {
      row_of_[i] = next[as_index(slot_of_[i])]++;
      token_of_[as_index(row_of_[i])] = static_cast<std::int64_t>(i / k);
    }
  }
}

void AlltoallvSubLayer::exchange_counts() {
  std::vector<std::int32_t> counts(sent_counts_.size());
  bench_.mpi.exchange_counts(sent_counts_, counts);
  for (int rank = 0; rank < bench_.measured.topology.ranks(); ++rank) {
    if (rank != bench_.rank) {
      add_bytes(rank, slots_ * sizeof(std::int32_t));
    }
  }
  list_arrivals(counts);
}

/// Where the rows that come lie in the order of slots: by slot, then by rank.
void AlltoallvSubLayer::list_arrivals(std::span<const std::int32_t> counts) {
  const std::size_t ranks = rows_sent_.size();
  const std::size_t slots = experts_.slots();
  std::vector<std::int64_t> begins(counts.size());
  slot_offsets_.assign(1, 0);
  for (std::size_t slot = 0; slot < slots; ++slot) {
    std::int64_t end = slot_offsets_.back();
    for (std::size_t rank = 0; rank < ranks; ++rank) {
      begins[rank * slots_ + slot] = end;
      end += counts[rank * slots_ + slot];
    }
    slot_offsets_.push_back(end);
  }
  rows_received_.assign(ranks, 0);
  place_of_.clear();
  for (std::size_t i = 0; i < counts.size(); ++i) {
    rows_received_[i / slots_] += counts[i];
    for (std::int64_t row = 0; row < counts[i]; ++row) {
      place_of_.push_back(begins[i] + row);
    }
  }
}

Tensor AlltoallvSubLayer::dispatch(const Tensor& rows, bool with_gates) {
  const std::vector<const std::byte*> sources = row_sources(rows);
  std::vector<const std::byte*> from;
  for (const std::int64_t token : token_of_) {
    from.push_back(sources[as_index(token)]);
  }
  copy_rows(bench_.op, from, home_.rows(at_home_), row_bytes(rows));
  if (with_gates) {
    const std::vector<float*> scalars = home_.scalars(at_home_);
    const std::span<const float> gates(bench_.measured.choices(group_).gates);
    const auto mine = gates.subspan(as_index(bench_.measured.first_token(bench_.rank) *
                                             bench_.measured.choices(group_).choices),
                                    row_of_.size());
    for (std::size_t i = 0; i < row_of_.size(); ++i) {
      if (row_of_[i] >= 0) {
        *scalars[as_index(row_of_[i])] = mine[i];
      }
    }
  }
  const MpiAlltoallv::Parts sent = home_.parts(with_gates);
  bench_.mpi.exchange(at_home_, sent, at_experts_, away_.parts(with_gates));
  count(rows_sent_, sent);

  const auto arrived = static_cast<std::int64_t>(place_of_.size());
  const Tensor ordered = bench_.activations.tensor(rows.dtype(), {arrived, rows.cols()});
  const std::vector<std::byte*> places = row_targets(ordered);
  std::vector<std::byte*> to;
  for (const std::int64_t place : place_of_) {
    to.push_back(places[as_index(place)]);
  }
  const std::vector<std::byte*> came = away_.rows(at_experts_);
  copy_rows(bench_.op, std::vector<const std::byte*>(came.begin(), came.end()), to,
            row_bytes(rows));
  return ordered;
}

void AlltoallvSubLayer::collect(const Tensor& rows, const Tensor& scalars) {
  const std::vector<const std::byte*> sources = row_sources(rows);
  std::vector<const std::byte*> from;
  for (const std::int64_t place : place_of_) {
    from.push_back(sources[as_index(place)]);
  }
  copy_rows(bench_.op, from, away_.rows(at_experts_), row_bytes(rows));
  if (scalars.defined()) {
    const std::vector<float*> to = away_.scalars(at_experts_);
    for (std::size_t i = 0; i < to.size(); ++i) {
      *to[i] = scalars.data<float>()[place_of_[i]];
    }
  }
  const MpiAlltoallv::Parts sent = away_.parts(scalars.defined());
  bench_.mpi.exchange(at_experts_, sent, at_home_, home_.parts(scalars.defined()));
  count(rows_received_, sent);
}

Tensor AlltoallvSubLayer::sum(const Tensor& own) const {
  const auto k = as_index(bench_.measured.choices(group_).choices);
  const std::vector<const std::byte*> first = row_sources(own);
  const std::vector<std::byte*> back = home_.rows(at_home_);
  std::vector<std::int64_t> begins(1, 0);
  std::vector<const std::byte*> terms;
  for (std::size_t token = 0; token < first.size(); ++token) {
    terms.push_back(first[token]);
    for (std::size_t i = token * k; i < (token + 1) * k; ++i) {
      if (row_of_[i] >= 0) {
        terms.push_back(back[as_index(row_of_[i])]);
      }
    }
    begins.push_back(static_cast<std::int64_t>(terms.size()));
  }
  const Tensor out = bench_.activations.tensor(own.dtype(), own.shape());
  sum_rows(bench_.op, own.dtype(), own.cols(), begins, terms, row_targets(out));
  return out;
}

Tensor AlltoallvSubLayer::forward(const Tensor& x, BenchSeconds& seconds) {
  const Clock& clock = bench_.op.clock;
  {
    const BenchTimer timer(clock, seconds, dispatch_of(group_));
    order_by_expert();
    exchange_counts();
    home_ = RankParts(rows_sent_, row_bytes(x));
    away_ = RankParts(rows_received_, row_bytes(x));
    at_home_ = static_cast<std::byte*>(bench_.activations.allocate(home_.bytes()));
    at_experts_ = static_cast<std::byte*>(bench_.activations.allocate(away_.bytes()));
    received_ = dispatch(x, true);
    gates_ = bench_.activations.tensor(DType::f32, {received_.rows()});
    const std::vector<float*> came = away_.scalars(at_experts_);
    for (std::size_t i = 0; i < came.size(); ++i) {
      gates_.data<float>()[place_of_[i]] = *came[i];
    }
  }
  const Tensor y = bench_.activations.tensor(x.dtype(), received_.shape());
  {
    const BenchTimer timer(clock, seconds, BenchPhase::experts);
    experts_.forward(bench_.op, slot_offsets_, received_, gates_, y);
  }
  const BenchTimer timer(clock, seconds, collect_of(group_));
  collect(y, {});
  return sum(x);
}

Tensor AlltoallvSubLayer::backward(const Tensor& dout) {
  Arena& arena = bench_.activations;
  const Tensor dy = dispatch(dout, false);
  const Tensor dreceived = arena.tensor(dy.dtype(), dy.shape());
  const Tensor dots = arena.tensor(DType::f32, {dy.rows()});
  experts_.backward(bench_.op, slot_offsets_, received_, gates_, dy, dreceived, dots);
  collect(dreceived, dots);
  dgates_ = arena.tensor(DType::f32, {dout.rows(), bench_.measured.choices(group_).choices});
  const std::vector<float*> came = home_.scalars(at_home_);
  for (std::size_t i = 0; i < row_of_.size(); ++i) {
    dgates_.data<float>()[i] = row_of_[i] < 0 ? 0 : *came[as_index(row_of_[i])];
  }
  return sum(dout);
}

void AlltoallvSubLayer::count(std::span<const std::int64_t> rows,
                              const MpiAlltoallv::Parts& parts) {
  for (int rank = 0; rank < static_cast<int>(rows.size()); ++rank) {
    if (rank != bench_.rank) {
      bench_.sent.rows.at(scope_of(rank)) += static_cast<double>(rows[as_index(rank)]);
      add_bytes(rank, as_index(parts.counts[as_index(rank)]) * MpiAlltoallv::kUnit);
    }
  }
}

std::size_t AlltoallvSubLayer::scope_of(int rank) const {
  const Topology& topology = bench_.measured.topology;
  return topology.node(rank) == topology.node(bench_.rank) ? 0 : 1;
}

void AlltoallvSubLayer::add_bytes(int rank, std::size_t bytes) {
  bench_.sent.bytes.at(scope_of(rank)) += static_cast<double>(bytes);
}

}  // namespace cartesian
