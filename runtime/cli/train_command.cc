#include <fmt/format.h>

#include <memory>
#include <string>
#include <vector>

#include "comm/collectives.h"
#include "runtime/cli/command.h"
#include "runtime/train/trainer.h"

namespace cartesian {

namespace {

struct Options {
  std::string config;
  std::vector<std::string> settings;
  TrainOptions train;
  bool keys = false;
};

int train(const Options& options, Job& job) {
  Config config;
  agree(job.transport, {"configuration"},
        [&] { config = load_config(job.files, options.config, options.settings); });
  return run_over_transport(job, config, [&](Job& chosen) {
    Trainer trainer(chosen, config, options.train);
    return run_alive(chosen, [&] { return trainer.run(); });
  });
}

}  // namespace

CommandFunction add_train_command(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "train", "Train a model as a TOML file says, on the ranks that mpirun starts");
  command->add_option("config", options->config, "TOML file (docs/configuration.md)");
  command->add_option("--set", options->settings, "Override a key: section.key=value")
      ->allow_extra_args(false)
      ->type_name("KEY=VALUE");
  command->add_flag("--resume", options->train.resume,
                    "Go on from the run directory's last checkpoint");
  command
      ->add_option("--stop-at", options->train.stop_at,
                   "Stop with a checkpoint after this step, exit code 75")
      ->check(CLI::PositiveNumber);
  command->add_flag("--keys", options->keys,
                    "Print every key of the configuration with its default and meaning");
  command->footer(
      "Examples:\n"
      "  cartesian train configs/quickstart.toml\n"
      "  mpirun -np 4 cartesian train configs/quickstart.toml --set train.dtype=bfloat16\n"
      "  mpirun -np 2 cartesian train configs/quickstart.toml --resume\n"
      "Exit codes: 0 done, 1 error, 2 usage, 75 stopped on request with a checkpoint (run again "
      "with --resume).");
  return [options] {
    if (options->keys) {
      fmt::print("{}", to_documented_toml({}));
      return kExitOk;
    }
    if (options->config.empty()) {
      fmt::print(stderr, "cartesian train: CONFIG is required; see 'cartesian train --help'\n");
      return kExitUsage;
    }
    return run_job([&](Job& job) { return train(*options, job); });
  };
}

}  // namespace cartesian
