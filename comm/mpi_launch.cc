#include <algorithm>
#include <array>
#include <cstdlib>

#include "comm/mpi_transport.h"

namespace cartesian {

bool launched_by_mpi() {
  // Open MPI's mpirun; PMIx (srun --mpi=pmix, prterun); PMI (MPICH's and Intel's mpirun, srun
  // --mpi=pmi2). SLURM_PROCID is not among them: batch scripts have it too.
  constexpr std::array kRankVariables{"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"};
  return std::any_of(kRankVariables.begin(), kRankVariables.end(),
                     [](const char* name) { return std::getenv(name) != nullptr; });
}

}  // namespace cartesian
