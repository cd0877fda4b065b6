// In place of mpi_transport.cc in a build without MPI.

#include "base/error.h"
#include "comm/mpi_transport.h"

namespace cartesian {

bool mpi_available() { return false; }

std::string mpi_library() { return "none"; }

std::unique_ptr<Transport> make_mpi_transport(const TransportOptions&) {
  throw ConfigError(
      "this build has no MPI: build with -DCARTESIAN_MPI=ON where MPI is installed, or start one "
      "rank without mpirun");
}

void call_mpi(Transport&, const std::function<void()>&) {
  throw ConfigError("this build has no MPI to call: build with -DCARTESIAN_MPI=ON");
}

}  // namespace cartesian
