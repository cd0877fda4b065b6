#pragma once
// Report: what runs tell of themselves, as a page to look at and as files for other tools.

#include <string>
#include <vector>

#include "base/file_system.h"

namespace cartesian {

struct ReportOptions {
  std::vector<Path> runs;  ///< run directories, at least one
  Path output;  ///< of the page; empty: report.html in the only run's directory, or in this one
  Path csv;     ///< a directory for scalars.csv; empty: not wanted
  Path tensorboard;  ///< a log directory, in which each run gets its own; empty: not wanted
};

/// Writes what is asked for, replacing what is there. Returns the files written, the page first.
/// Throws FileError or FormatError, which name the file and the line.
std::vector<Path> write_report(FileSystem& files, const ReportOptions& options);

/// The page of one run, in its directory: a line for the user that says where it is, or why there
/// is none.
std::string try_write_report(FileSystem& files, const Path& run_directory);

}  // namespace cartesian
