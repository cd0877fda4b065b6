#include "runtime/job.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <optional>
#include <sstream>
#include <vector>

#include "base/error.h"
#include "comm/collectives.h"
#include "comm/local_transport.h"
#include "comm/mpi_transport.h"
#include "comm/split_transport.h"
#include "comm/ucx_transport.h"
#include "runtime/config/config.h"

namespace cartesian {

namespace {

std::unique_ptr<Transport> make_transport(Metrics& metrics) {
  const TransportOptions options{.metrics = &metrics};
  if (launched_by_mpi()) {
    return make_mpi_transport(options);
  }
  return std::move(make_local_transports(1, options).front());
}

/// Ends the process without waiting for anybody: other ranks may be gone, and MPI_Finalize would
/// wait for them.
[[noreturn]] void end_after_error(int code) {
  std::fflush(stdout);
  std::fflush(stderr);
  std::_Exit(code);
}

/// This rank failed, and the others do not know.
[[noreturn]] void end_alone(Job& job, const std::string& cause) {
  fmt::print(stderr, "cartesian: {}\n", cause);
  job.transport.abort(cause);
  end_after_error(kExitError);
}

/// Every rank failed alike and knows it: the job ends in order.
int finish_after_shared_error(Job& job, const Error& error) {
  if (job.is_root()) {
    fmt::print(stderr, "cartesian: {}\n", error.what());
  }
  job.stop.settle();
  try {
    job.transport.finish();
  } catch (const CommError& lost) {
    job.transport.abort(lost.what());
    end_after_error(kExitError);
  }
  return kExitError;
}

int run_body(Job& job, const std::function<int(Job&)>& body) {
  try {
    return run_alive(job, [&] {
      const int code = body(job);
      job.stop.settle();
      job.transport.finish();
      return code;
    });
  } catch (const Error& error) {
    return finish_after_shared_error(job, error);
  }
}

void check_transport(const char* key, const std::string& transport) {
  if (transport == "mpi" && !launched_by_mpi()) {
    throw ConfigError(fmt::format(
        "{} = \"mpi\", but this process was not started by mpirun or another launcher", key));
  }
  if (transport == "ucx" && !ucx_available()) {
    throw ConfigError(fmt::format(
        "{} = \"ucx\", but this build has no UCX: install libucx-dev and build again", key));
  }
}

/// The body with another transport, which ends, in order or told of a failure, as the body does.
int run_over(Job& job, Transport& transport, const std::function<int(Job&)>& body) {
  Job over{job.files, job.clock, job.metrics, transport, job.stop};
  const auto finish_with = [&](int code) {
    return run_alive(over, [&] {
      transport.finish();
      return code;
    });
  };
  try {
    return finish_with(run_alive(over, [&] { return body(over); }));
  } catch (const Error&) {  // every rank's: else run_alive() has ended the process
    finish_with(kExitError);
    throw;
  }
}

}  // namespace

int run_alive(Job& job, const std::function<int()>& work) {
  try {
    return work();
  } catch (const Error& error) {
    if (error.on_every_rank()) {
      throw;
    }
    end_alone(job, error.what());
  } catch (const std::exception& error) {
    end_alone(job, fmt::format("rank {}: {}", job.transport.rank(), error.what()));
  }
}

int run_over_transport(Job& job, const Config& config, const std::function<int(Job&)>& body) {
  check_same_config(job.transport, config);
  const CommConfig& comm = config.comm;
  agree(job.transport, {"configuration"}, [&] {
    check_transport("comm.intra", comm.intra);
    check_transport("comm.inter", comm.inter);
  });
  if (comm.intra != "ucx" && comm.inter != "ucx") {
    return body(job);
  }
  const auto ucx =
      make_ucx_transport(*make_bootstrap(job.transport),
                         {.timeout = Seconds(comm.timeout_s), .metrics = &job.metrics});
  if (comm.intra == comm.inter) {
    return run_over(job, *ucx, body);
  }
  const auto split = comm.intra == "ucx" ? make_split_transport(*ucx, job.transport)
                                         : make_split_transport(job.transport, *ucx);
  return run_over(job, *split, body);
}

int run_job(const std::function<int(Job&)>& body) {
  StopSignal stop;
  const auto files = make_posix_file_system();
  const SteadyClock clock;
  Metrics metrics;
  std::unique_ptr<Transport> transport;
  try {
    transport = make_transport(metrics);
  } catch (const Error& error) {
    fmt::print(stderr, "cartesian: {}\n", error.what());
    end_after_error(kExitError);
  }
  Job job{*files, clock, metrics, *transport, stop};
  return run_body(job, body);
}

Topology find_topology(Transport& transport, std::span<const std::int64_t> node_sizes) {
  const std::vector<std::string> hosts = all_gather(transport, transport.host(), {"bootstrap"});
  std::optional<Topology> topology;
  agree(transport, {"bootstrap"}, [&] {
    std::vector<int> sizes;
    std::ranges::transform(node_sizes, std::back_inserter(sizes), [](std::int64_t size) {
      return static_cast<int>(std::min<std::int64_t>(size, 1 << 20));
    });
    topology = sizes.empty() ? Topology::from_host_names(hosts)
                             : Topology::from_node_sizes(sizes, transport.size());
  });
  transport.set_topology(*topology, hosts);
  return *topology;
}

void check_same_contents(Transport& transport, const std::string& what, const std::string& mine) {
  const std::vector<std::string> all = all_gather(transport, mine, {"configuration"});
  const std::vector<std::string> hosts = all_gather(transport, transport.host(), {"configuration"});
  for (std::size_t rank = 1; rank < all.size(); ++rank) {
    if (all[rank] != all[0]) {
      throw ConfigError(fmt::format("{} is not the same on rank {} ({}) as on rank 0 ({}): all "
                                    "ranks need the same files",
                                    what, rank, hosts[rank], hosts[0]),
                        /*on_every_rank=*/true);
    }
  }
}

void check_same_config(Transport& transport, const Config& config) {
  const std::vector<std::string> texts = all_gather(transport, to_toml(config), {"configuration"});
  for (std::size_t rank = 1; rank < texts.size(); ++rank) {
    std::istringstream ours(texts[0]);
    std::istringstream theirs(texts[rank]);
    std::string section;
    for (std::string a, b; std::getline(ours, a) && std::getline(theirs, b);) {
      section = a.starts_with('[') ? a : section;
      if (a != b) {
        throw ConfigError(
            fmt::format("rank {} was given another configuration: in {} '{}' there, '{}' on rank 0",
                        rank, section, b, a),
            /*on_every_rank=*/true);
      }
    }
  }
}

int ranks_on_host(Transport& transport) {
  const std::vector<std::string> hosts = all_gather(transport, transport.host(), {"bootstrap"});
  return static_cast<int>(std::ranges::count(hosts, transport.host()));
}

}  // namespace cartesian
