#include <fmt/format.h>

#include <map>
#include <new>

#include "base/error.h"
#include "runtime/cli/command.h"
#include "runtime/job.h"
#include "runtime/version.h"

int main(int argc, char** argv) {
  using namespace cartesian;
  CLI::App app("Cartesian: expert-parallel training of CartesianMoE language models");
  app.require_subcommand(1);
  app.set_version_flag("--version", std::string(version()));
  const std::map<std::string, CommandFunction> commands = {
      {"train", add_train_command(app)},       {"eval", add_eval_command(app)},
      {"generate", add_generate_command(app)}, {"info", add_info_command(app)},
      {"tokenize", add_tokenize_command(app)}, {"report", add_report_command(app)},
      {"plan", add_plan_command(app)},         {"simulate", add_simulate_command(app)},
      {"trace", add_trace_command(app)},       {"homes", add_homes_command(app)},
      {"bench", add_bench_command(app)},       {"top", add_top_command(app)},
  };
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  }
  try {
    return commands.at(app.get_subcommands().front()->get_name())();
  } catch (const Error& error) {  // of a command that is no job of ranks: those end otherwise
    fmt::print(stderr, "cartesian: {}\n", error.what());
    return kExitError;
  } catch (const std::bad_alloc&) {
    fmt::print(stderr, "cartesian: this needs more memory than there is\n");
    return kExitError;
  }
}
