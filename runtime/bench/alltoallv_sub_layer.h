#pragma once
// AlltoallvSubLayer: one rank's tokens in one sub-layer of stand-in experts, by MPI_Alltoallv.

#include <vector>

#include "base/arena.h"
#include "base/context.h"
#include "comm/mpi_alltoallv.h"
#include "runtime/bench/exchange_case.h"
#include "runtime/bench/exchange_path.h"
#include "runtime/bench/stand_in_experts.h"

namespace cartesian {

/// A buffer with rows and, behind each rank's rows, one float for each.
class RankParts {
 public:
  RankParts() = default;
  RankParts(std::span<const std::int64_t> rows, std::size_t row_bytes);

  std::size_t bytes() const { return bytes_; }
  MpiAlltoallv::Parts parts(bool with_scalars) const;
  /// Addresses in a buffer, by rank.
  std::vector<std::byte*> rows(std::byte* buffer) const;
  std::vector<float*> scalars(std::byte* buffer) const;

 private:
  /// Behind so many rows.
  std::size_t scalars_at(std::int64_t rows) const;

  std::vector<std::int64_t> rows_;
  std::vector<std::size_t> begins_;  // bytes
  std::size_t row_bytes_ = 0;
  std::size_t bytes_ = 0;
};

class AlltoallvSubLayer {
 public:
  struct Bench {
    const ExchangeCase& measured;
    int rank;
    MpiAlltoallv& mpi;
    Context& op;
    Arena& activations;  ///< of one step
    SentTraffic& sent;
  };
  /// All must outlive it.
  AlltoallvSubLayer(const Bench& bench, int group);

  /// x [tokens, hidden], needed until the step ends; returns the sums.
  Tensor forward(const Tensor& x, BenchSeconds& seconds);
  /// Returns the gradient of x.
  Tensor backward(const Tensor& dout);
  const Tensor& gate_gradients() const { return dgates_; }  ///< [tokens, k]

 private:
  void order_by_expert();
  void exchange_counts();
  void list_arrivals(std::span<const std::int32_t> counts);
  /// Rows of `rows` there, into the order of slots.
  Tensor dispatch(const Tensor& rows, bool with_gates);
  /// Rows in the order of slots back; `scalars` may be undefined.
  void collect(const Tensor& rows, const Tensor& scalars);
  /// Of a token's own row and what came back of it.
  Tensor sum(const Tensor& own) const;
  void count(std::span<const std::int64_t> rows, const MpiAlltoallv::Parts& parts);
  std::size_t scope_of(int rank) const;  ///< in SentTraffic
  void add_bytes(int rank, std::size_t bytes);

  Bench bench_;
  int group_;
  StandInExperts experts_;
  std::size_t slots_ = 0;                  ///< the most of any rank
  std::vector<std::int32_t> slot_of_;      ///< [tokens, k] rank * slots_ + slot, -1: no choice
  std::vector<std::int64_t> row_of_;       ///< [tokens, k] among the rows sent
  std::vector<std::int64_t> token_of_;     ///< [rows sent]
  std::vector<std::int32_t> sent_counts_;  ///< [ranks, slots_]
  std::vector<std::int64_t> rows_sent_, rows_received_;  ///< [ranks]
  std::vector<std::int64_t> place_of_;                   ///< [rows received] in the order of slots
  std::vector<std::int64_t> slot_offsets_;               ///< [slots + 1]
  RankParts home_, away_;
  std::byte* at_home_ = nullptr;  // buffers of the step
  std::byte* at_experts_ = nullptr;
  Tensor received_, gates_, dgates_;
};

}  // namespace cartesian
