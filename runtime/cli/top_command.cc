#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <thread>

#include "base/error.h"
#include "runtime/cli/command.h"
#include "runtime/job.h"
#include "runtime/top/live_view.h"
#include "runtime/top/terminal.h"
#include "runtime/train/metrics_endpoint.h"
#include "runtime/train/run_directory.h"

namespace cartesian {

namespace {

constexpr std::size_t kPlainWidth = 100;

struct Options {
  std::string address;
  double interval_s = 2;
  bool once = false;
  std::size_t width = 0;
};

/// Whether the terminal, if there is one, understands more than text.
bool has_screen() {
  const char* kind = std::getenv("TERM");
  return Terminal::is_there() && kind != nullptr && std::string_view(kind) != "dumb";
}

bool wants_colour() {
  const char* refused = std::getenv("NO_COLOR");  // https://no-color.org
  return refused == nullptr || *refused == '\0';
}

/// That a run's configuration asks for, if it can be read.
std::optional<double> total_steps(FileSystem& files, const MetricsTarget& target) {
  if (!target.is_directory()) {
    return std::nullopt;
  }
  try {
    const Config config = load_config(files, Path(target.name()) / kRunConfigFile, {});
    return static_cast<double>(config.train.steps);
  } catch (const Error&) {
    return std::nullopt;
  }
}

std::string ended(const MetricsTarget& target) {
  return fmt::format("{}: the run has ended", target.name());
}

/// The first reading, of a job that is expected to be there.
JobSnapshot first_reading(MetricsSource& source, const MetricsTarget& target) {
  std::optional<JobSnapshot> snapshot;
  try {
    snapshot = source.read();
  } catch (const FormatError&) {
    throw;
  } catch (const Error& error) {
    throw Error(fmt::format(
        "{}; {}", error.what(),
        target.is_directory()
            ? fmt::format("if the run was killed, {}/{} is what it left behind", target.name(),
                          kMetricsAddressFile)
            : "a run that serves metrics (metrics.port) says its address when it starts"));
  }
  if (!snapshot) {
    throw Error(
        fmt::format("{} has no {}: its run has ended or serves no metrics, as it does with --set "
                    "metrics.port=0",
                    target.name(), kMetricsAddressFile));
  }
  return std::move(*snapshot);
}

int show_once(LiveView& view, MetricsSource& source, const MetricsTarget& target,
              const Options& options) {
  std::this_thread::sleep_for(Seconds(options.interval_s));
  std::optional<JobSnapshot> snapshot = source.read();
  if (!snapshot) {
    fmt::print("{}\n", ended(target));
    return kExitOk;
  }
  view.take(std::move(*snapshot));
  const std::size_t width = options.width > 0
                                ? options.width
                                : terminal_size().value_or(ScreenSize{.width = kPlainWidth}).width;
  for (const std::string& line : view.lines({.width = width}, /*colour=*/false)) {
    fmt::print("{}\n", line);
  }
  return kExitOk;
}

int top(const Options& options) {
  constexpr int kSignalExit = 128;  // plus the signal, as shells have it
  const auto files = make_posix_file_system();
  const SteadyClock clock;
  const MetricsTarget target(*files, options.address);
  const Seconds interval(options.interval_s);
  MetricsSource source(target, clock);
  JobSnapshot first = first_reading(source, target);
  const bool once = options.once || !has_screen();
  std::string title = first.source;
  if (target.is_directory()) {
    title = target.name() + " at " + title;
  }
  LiveView view({.title = title + (once ? "" : "   q quits"),
                 .trouble = "",
                 .total_steps = total_steps(*files, target)},
                clock);
  view.take(std::move(first));
  if (once) {
    return show_once(view, source, target, options);
  }
  const LiveResult result =
      show_live(view, source, {.interval = interval, .colour = wants_colour()});
  if (result.end == LiveEnd::job_ended) {
    fmt::print("{}\n", ended(target));
  }
  return result.signal == 0 || result.signal == SIGINT ? kExitOk : kSignalExit + result.signal;
}

}  // namespace

CommandFunction add_top_command(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "top",
      "Watch a training job: expert loads, traffic, phases of the step, stragglers, the plan");
  command
      ->add_option(
          "address", options->address,
          "Of its metrics: HOST:PORT, http://HOST:PORT, or the run directory while it runs")
      ->required();
  command->add_option("--interval", options->interval_s, "Seconds between readings")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str();
  command->add_flag("--once", options->once,
                    "Print one view, of two readings an interval apart, as plain text, and exit");
  command->add_option("--width", options->width, "Columns of --once; else the terminal's, or 100")
      ->check(CLI::Range(20, 1000));
  command->footer(
      "q or Ctrl-C ends it, and so does the end of a run that is named by its directory. Rates "
      "are\n"
      "over the last 10 readings, or more where steps are slow. Where standard input or output is\n"
      "no terminal, it does as with --once. NO_COLOR=1 in the environment: no colours.\n"
      "The job must serve metrics: metrics.port (docs/monitoring.md).\n"
      "Examples:\n"
      "  cartesian top 127.0.0.1:9400\n"
      "  cartesian top runs/quickstart --interval 5\n"
      "  cartesian top runs/quickstart --once --width 120");
  return [options] { return top(*options); };
}

}  // namespace cartesian
