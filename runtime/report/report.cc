#include "runtime/report/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>

#include "runtime/report/csv.h"
#include "runtime/report/page.h"
#include "runtime/report/tensorboard.h"

namespace cartesian {

namespace {

constexpr const char* kPageFile = "report.html";
// TensorBoard takes files of this name; another run of the command replaces it.
constexpr const char* kEventFile = "events.out.tfevents.0.cartesian";

/// Each run's own directory below TensorBoard's; a name that is a path stays below it, too.
std::vector<Path> event_paths(const Path& directory, const std::vector<RunData>& runs) {
  std::vector<Path> paths;
  for (const RunData& run : runs) {
    std::string name = run.name;
    std::ranges::replace(name, '/', '_');
    name = name == "." || name == ".." ? "run" : name;
    Path path = directory / name / kEventFile;
    for (int number = 2; std::ranges::find(paths, path) != paths.end(); ++number) {
      path = directory / fmt::format("{}-{}", name, number) / kEventFile;
    }
    paths.push_back(path);
  }
  return paths;
}

}  // namespace

std::vector<Path> write_report(FileSystem& files, const ReportOptions& options) {
  const std::vector<RunData> runs = load_runs(files, options.runs);
  std::vector<Path> written;
  const auto write = [&](const Path& path, const std::string& contents) {
    if (path.has_parent_path()) {
      files.create_directories(path.parent_path());
    }
    files.write_atomically(path, contents);
    written.push_back(path);
  };
  Path page = options.output;
  if (page.empty()) {
    page = runs.size() == 1 ? runs.front().path / kPageFile : Path(kPageFile);
  }
  write(page, make_page(runs));
  if (!options.csv.empty()) {
    write(options.csv / "scalars.csv", make_csv(runs));
  }
  if (!options.tensorboard.empty()) {
    const std::vector<Path> paths = event_paths(options.tensorboard, runs);
    for (std::size_t i = 0; i < runs.size(); ++i) {
      write(paths[i], make_event_file(runs[i]));
    }
  }
  return written;
}

std::string try_write_report(FileSystem& files, const Path& run_directory) {
  try {
    const ReportOptions options{
        .runs = {run_directory}, .output = {}, .csv = {}, .tensorboard = {}};
    return fmt::format("report: {}", write_report(files, options).front().string());
  } catch (const std::exception& error) {  // whatever it is, the run itself has succeeded
    return fmt::format("no report could be written: {}", error.what());
  }
}

}  // namespace cartesian
