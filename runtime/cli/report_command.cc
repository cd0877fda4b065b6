#include <fmt/format.h>

#include <memory>
#include <string>
#include <vector>

#include "base/file_system.h"
#include "runtime/cli/command.h"
#include "runtime/job.h"
#include "runtime/report/report.h"

namespace cartesian {

namespace {

struct Options {
  std::vector<std::string> runs;
  std::string output;
  std::string csv;
  std::string tensorboard;
};

int report(const Options& options) {
  const auto files = make_posix_file_system();
  for (const Path& path : write_report(*files, {.runs = {options.runs.begin(), options.runs.end()},
                                               .output = options.output,
                                               .csv = options.csv,
                                               .tensorboard = options.tensorboard})) {
    fmt::print("wrote {}\n", path.string());
  }
  return kExitOk;
}

}  // namespace

CommandFunction add_report_command(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "report", "Write a page about one run, finished or not, or one that compares several");
  command->add_option("runs", options->runs, "Run directories")->required();
  command->add_option("-o,--output", options->output,
                      "The page; else RUN/report.html of one run, ./report.html of several");
  command->add_option("--csv", options->csv, "Write every step's scalars to DIR/scalars.csv, too")
      ->type_name("DIR");
  command
      ->add_option("--tensorboard", options->tensorboard,
                   "Write them as event files for TensorBoard, too: tensorboard --logdir DIR")
      ->type_name("DIR");
  command->footer(
      "The page is one file that needs no network: open it in a browser.\n"
      "Examples:\n"
      "  cartesian report runs/quickstart\n"
      "  cartesian report runs/one runs/two -o compared.html\n"
      "  cartesian report runs/quickstart --csv tables --tensorboard tensorboard");
  return [options] { return report(*options); };
}

}  // namespace cartesian
