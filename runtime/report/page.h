#pragma once
// The report's page: one HTML file that needs nothing else, neither files nor a network.

#include <string>
#include <vector>

#include "runtime/report/run_data.h"

namespace cartesian {

/// JSON that may stand inside a <script> element, whatever its strings say.
std::string script_safe(std::string json);

/// The page of at least one run; of several it compares them. Below 3 MB for up to eight runs of
/// any length and model.
std::string make_page(const std::vector<RunData>& runs);

}  // namespace cartesian
