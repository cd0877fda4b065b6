#pragma once
// top_screen: a JobView as the lines of a screen. Pure.

#include <cstddef>
#include <string>
#include <vector>

#include "runtime/top/job_view.h"
#include "runtime/top/screen_sections.h"

namespace cartesian {

struct ScreenSize {
  std::size_t width = 80;
  std::size_t height = 0;  ///< 0: as high as need be
};

/// UTF-8, each at most size.width columns, at most size.height lines: what does not fit is counted,
/// rows of experts and ranks first.
std::vector<std::string> top_screen(const JobView& view, const ScreenContext& context,
                                    const ScreenSize& size, bool colour);

}  // namespace cartesian
