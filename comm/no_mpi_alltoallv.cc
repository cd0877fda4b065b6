// In place of mpi_alltoallv.cc in a build without MPI.

#include "base/error.h"
#include "comm/mpi_alltoallv.h"

namespace cartesian {

std::unique_ptr<MpiAlltoallv> make_mpi_alltoallv(Transport&) {
  throw ConfigError(
      "this build has no MPI, and so no MPI_Alltoallv: build with -DCARTESIAN_MPI=ON");
}

}  // namespace cartesian
