#pragma once
// The command line: one function per subcommand adds its options to the parser and returns what
// runs it.

#include <CLI/CLI.hpp>
#include <functional>

namespace cartesian {

/// Runs a parsed subcommand; returns the exit code, or throws Error.
using CommandFunction = std::function<int()>;

CommandFunction add_train_command(CLI::App& app);
CommandFunction add_eval_command(CLI::App& app);
CommandFunction add_generate_command(CLI::App& app);
CommandFunction add_info_command(CLI::App& app);
CommandFunction add_tokenize_command(CLI::App& app);
CommandFunction add_report_command(CLI::App& app);
CommandFunction add_plan_command(CLI::App& app);
CommandFunction add_simulate_command(CLI::App& app);
CommandFunction add_trace_command(CLI::App& app);
CommandFunction add_homes_command(CLI::App& app);
CommandFunction add_bench_command(CLI::App& app);
CommandFunction add_top_command(CLI::App& app);

}  // namespace cartesian
