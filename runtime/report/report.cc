#include "runtime/report/report.h"

#include <fmt/format.h>

#include "base/error.h"
#include "runtime/report/csv.h"
#include "runtime/report/page.h"
#include "runtime/report/tensorboard.h"

namespace cartesian {

namespace {

constexpr const char* kPageFile = "report.html";
// TensorBoard takes files of this name; another run of the command replaces it.
constexpr const char* kEventFile = "events.out.tfevents.0.cartesian";

/// The run's own directory below TensorBoard's; a name that is a path stays below it, too.
Path event_path(const Path& directory, const RunData& run) {
  std::string name = run.name;
  for (char& c : name) {
    c = c == '/' ? '_' : c;
  }
  return directory / (name == "." || name == ".." ? "run" : name) / kEventFile;
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
    for (const RunData& run : runs) {
      write(event_path(options.tensorboard, run), make_event_file(run));
    }
  }
  return written;
}

std::string try_write_report(FileSystem& files, const Path& run_directory) {
  try {
    const ReportOptions options{
        .runs = {run_directory}, .output = {}, .csv = {}, .tensorboard = {}};
    return fmt::format("report: {}", write_report(files, options).front().string());
  } catch (const Error& error) {
    return fmt::format("no report could be written: {}", error.what());
  }
}

}  // namespace cartesian
