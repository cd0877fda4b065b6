#pragma once
// MPI's own all-to-all: what the exchange is measured against, never what it sends by. Blocking and
// without a deadline, as MPI's collectives are: a job that loses a rank here is ended by its
// launcher. Thread-safety: belongs to the thread that made it.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "comm/transport.h"

namespace cartesian {

class MpiAlltoallv {
 public:
  /// What parts are counted in.
  static constexpr std::size_t kUnit = 4;
  /// One part of a buffer for every rank, in kUnit bytes. MPI counts in ints: 8 GiB are the most.
  struct Parts {
    std::vector<int> counts;
    std::vector<int> begins;
  };

  virtual ~MpiAlltoallv() = default;
  /// MPI_Alltoall: the r-th of as many equal parts as there are ranks goes to rank r. Collective.
  virtual void exchange_counts(std::span<const std::int32_t> from, std::span<std::int32_t> to) = 0;
  /// MPI_Alltoallv. Collective. Throws CommError where MPI reports an error.
  virtual void exchange(const std::byte* from, const Parts& sent, std::byte* to,
                        const Parts& received) = 0;
};

/// Collective. `transport`, which must be make_mpi_transport()'s and outlive what is made, does not
/// call MPI meanwhile. Throws ConfigError where the build has no MPI.
std::unique_ptr<MpiAlltoallv> make_mpi_alltoallv(Transport& transport);

}  // namespace cartesian
