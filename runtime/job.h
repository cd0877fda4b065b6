#pragma once
// Job: what a process of the program has from start to end: files, clock, metrics and its place
// among the ranks. And how a job ends: in order, or by telling the other ranks what went wrong.

#include <functional>
#include <memory>
#include <span>

#include "base/clock.h"
#include "base/file_system.h"
#include "base/metrics.h"
#include "base/topology.h"
#include "comm/transport.h"
#include "runtime/stop_signal.h"

namespace cartesian {

struct Config;

struct Job {
  FileSystem& files;
  const Clock& clock;
  Metrics& metrics;
  Transport& transport;
  StopSignal& stop;

  bool is_root() const { return transport.rank() == 0; }
};

/// Exit codes of the program.
inline constexpr int kExitOk = 0;
inline constexpr int kExitError = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitStopped =
    75;  ///< stopped on request, with a checkpoint: run again with --resume

/// Runs `body` as this process's part of the job: under MPI if a launcher started it, alone
/// otherwise. An exception ends the job: it is printed (once if every rank threw the same, else by
/// each rank that it concerns), the other ranks are told, and the process ends with kExitError
/// without waiting for them. Returns body's exit code.
int run_job(const std::function<int(Job&)>& body);

/// Runs `work`, whose owner keeps alive what it uses. If it throws what the other ranks do not
/// know, says so, tells them, and ends the process at once, before anything is destroyed: messages
/// may be on their way from and to it, and a destructor may have to wait for a disk. What every
/// rank throws alike passes through.
int run_alive(Job& job, const std::function<int()>& work);

/// Runs `body` with a job like this one whose messages travel as `config.comm` says: by job's own
/// transport, or by one that starts over it and ends, in order or told of a failure, as body does.
/// Collective. Throws ConfigError, on every rank, where that transport is not to be had.
int run_over_transport(Job& job, const Config& config, const std::function<int(Job&)>& body);

/// Ranks by node: `node_sizes` if not empty, else those that share a host. Collective.
Topology find_topology(Transport& transport, std::span<const std::int64_t> node_sizes);

/// Throws ConfigError on every rank if `mine`, what this rank read from `what`, differs from rank
/// 0's, naming the rank and its host. Collective.
void check_same_contents(Transport& transport, const std::string& what, const std::string& mine);

/// Throws ConfigError on every rank if ranks were given different configurations, naming the rank
/// and the line. Collective.
void check_same_config(Transport& transport, const Config& config);

/// How many ranks run on this rank's host, whatever the nodes. Collective.
int ranks_on_host(Transport& transport);

}  // namespace cartesian
