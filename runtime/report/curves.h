#pragma once
// Curves: a run's scalars over its steps, thinned so that a page of any run stays small: equal
// stretches of steps, each with its mean and its extremes.

#include <nlohmann/json_fwd.hpp>

#include "runtime/report/run_data.h"

namespace cartesian {

/// A number as short as five significant digits are; null if it is not finite.
nlohmann::ordered_json short_number(double value);

/// {"step": [last step of each stretch], "seconds": [time of all steps up to there],
///  "columns": {key: {"mean": [], "min": [], "max": []}}}, of at most `points` stretches. Extremes
/// are left out where they are the means throughout, and of phases, whose means are what adds up.
nlohmann::ordered_json curves_json(const ScalarTable& table, std::size_t points);

/// {"median": {key: value}, "seconds": of all steps}: what a person compares runs by, from every
/// step rather than the thinned ones.
nlohmann::ordered_json totals_json(const ScalarTable& table);

}  // namespace cartesian
