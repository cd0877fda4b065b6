#pragma once
// Scalars of runs as CSV (RFC 4180), documented in docs/formats.md.

#include <string>
#include <vector>

#include "runtime/report/run_data.h"

namespace cartesian {

/// One header line, then one line for every step of every run: run, step, and all columns of the
/// runs' metrics; an empty field where a step has no such number. A validation stands in the line
/// of its step.
std::string make_csv(const std::vector<RunData>& runs);

}  // namespace cartesian
