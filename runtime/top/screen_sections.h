#pragma once
// screen_sections: the parts of the screen of `cartesian top`, of a width each. Pure.

#include <cstddef>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "runtime/top/job_view.h"
#include "runtime/top/styled_line.h"

namespace cartesian {

using ScreenLines = std::vector<StyledLine>;

/// What is known beside the job's metrics.
struct ScreenContext {
  std::string title;                  ///< whose metrics these are
  std::string trouble;                ///< why nothing new has come; empty if it has
  std::optional<double> total_steps;  ///< that the job is to train
};

inline constexpr std::size_t kAllRows = std::numeric_limits<std::size_t>::max();

ScreenLines header_section(const JobView& view, const ScreenContext& context, std::size_t width);
ScreenLines phases_section(const JobView& view, std::size_t width);
ScreenLines traffic_section(const JobView& view, std::size_t width);
ScreenLines plan_section(const JobView& view, std::size_t width);
/// At most `rows` below the heading, the last of which says how many are left out, if any.
ScreenLines experts_section(const JobView& view, std::size_t width, std::size_t rows = kAllRows);
ScreenLines ranks_section(const JobView& view, std::size_t width, std::size_t rows = kAllRows);

}  // namespace cartesian
