#pragma once
// The mpi transport: two-sided MPI on communicators of its own. One thread at a time calls MPI: the
// one that waits, while it waits, so that a small message costs no hand-over between threads; else
// a helper thread, so that bytes move while the caller computes.

#include <functional>
#include <memory>
#include <string>

#include "comm/transport.h"

namespace cartesian {

/// Whether this build has MPI.
bool mpi_available();
/// Whether this process was started by mpirun, srun or another launcher that MPI_Init would join.
/// Not so in a plain shell inside a Slurm allocation.
bool launched_by_mpi();

/// The first line of what the MPI library says of itself; "none" where the build has no MPI.
std::string mpi_library();

/// Collective. Initialises MPI unless that has been done (then with MPI_THREAD_MULTIPLE). Throws
/// ConfigError where the build has no MPI, CommError where MPI cannot start.
///
/// MPI is finalised by Transport::finish() only, on the thread that made the transport, and only if
/// the transport initialised it. Destruction without finish() leaves MPI and the communicators as
/// they are, because giving them back is collective and a lost rank would hang it: the process is
/// expected to exit. Receives that had not begun are cancelled then; a message that was half
/// received may still be written to, so exit soon.
std::unique_ptr<Transport> make_mpi_transport(const TransportOptions& options = {});

/// Runs `work`, which may call MPI, on this thread while the transport's own do not. Messages that
/// are in flight stay so meanwhile. Throws ConfigError if `transport` is not
/// make_mpi_transport()'s.
void call_mpi(Transport& transport, const std::function<void()>& work);

}  // namespace cartesian
