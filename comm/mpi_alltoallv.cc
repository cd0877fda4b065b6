#include "comm/mpi_alltoallv.h"

#include <fmt/format.h>
#include <mpi.h>

#include "base/check.h"
#include "base/error.h"
#include "comm/mpi_transport.h"

namespace cartesian {

namespace {

void require_success(int code, const char* call) {
  if (code != MPI_SUCCESS) {
    throw CommError(fmt::format("{} failed with code {}", call, code));
  }
}

class WorldAlltoallv final : public MpiAlltoallv {
 public:
  explicit WorldAlltoallv(Transport& transport) : transport_(transport) {
    call_mpi(transport_, [&] {
      require_success(MPI_Comm_dup(MPI_COMM_WORLD, &world_), "MPI_Comm_dup");
      MPI_Comm_set_errhandler(world_, MPI_ERRORS_RETURN);
    });
  }
  // The communicator is left to MPI_Finalize: giving it back is collective.

  void exchange_counts(std::span<const std::int32_t> from, std::span<std::int32_t> to) override {
    const auto ranks = static_cast<std::size_t>(transport_.size());
    check(from.size() == to.size() && from.size() % ranks == 0, "every rank has an equal part");
    const int width = static_cast<int>(from.size() / ranks);
    call_mpi(transport_, [&] {
      require_success(
          MPI_Alltoall(from.data(), width, MPI_INT32_T, to.data(), width, MPI_INT32_T, world_),
          "MPI_Alltoall");
    });
  }

  void exchange(const std::byte* from, const Parts& sent, std::byte* to,
                const Parts& received) override {
    call_mpi(transport_, [&] {
      require_success(
          MPI_Alltoallv(from, sent.counts.data(), sent.begins.data(), MPI_INT32_T, to,
                        received.counts.data(), received.begins.data(), MPI_INT32_T, world_),
          "MPI_Alltoallv");
    });
  }

 private:
  Transport& transport_;
  MPI_Comm world_ = MPI_COMM_NULL;
};

}  // namespace

std::unique_ptr<MpiAlltoallv> make_mpi_alltoallv(Transport& transport) {
  return std::make_unique<WorldAlltoallv>(transport);
}

}  // namespace cartesian
