#pragma once
// The peer of the exchange, an ExchangePath as plain MPI has it: rows in order of their experts,
// counts by MPI_Alltoall, rows and gates by one MPI_Alltoallv there and one back, in each sub-layer
// and direction. Which rank each choice goes to is known beforehand, whereas the exchange finds it
// out in every step. In everything but the exchange it does what exchange_journey.h does.

#include <memory>

#include "base/context.h"
#include "comm/mpi_alltoallv.h"
#include "runtime/bench/exchange_path.h"

namespace cartesian {

struct ExchangeCase;

/// All must outlive it.
std::unique_ptr<ExchangePath> make_alltoallv_journey(const ExchangeCase& measured, int rank,
                                                     MpiAlltoallv& mpi, Context& context);

}  // namespace cartesian
