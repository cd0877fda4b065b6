#pragma once
// The mpi transport: two-sided MPI on a communicator of its own, driven by one thread per rank,
// which alone calls MPI.

#include <memory>

#include "comm/transport.h"

namespace cartesian {

/// Whether this build has MPI.
bool mpi_available();
/// Whether this process was started by mpirun, srun or another launcher that MPI_Init would join.
bool launched_by_mpi();

/// Initialises MPI on first use. Throws ConfigError where the build has no MPI, CommError where MPI
/// cannot start. MPI is finalised by Transport::finish() only, never by a destructor.
std::unique_ptr<Transport> make_mpi_transport(const TransportOptions& options = {});

}  // namespace cartesian
