#include "runtime/train/environment.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/error.h"
#include "comm/collectives.h"
#include "comm/mpi_transport.h"
#include "comm/ucx_transport.h"
#include "runtime/version.h"

namespace cartesian {

namespace {

using nlohmann::ordered_json;

/// The processor's name; "unknown" where the system does not tell.
std::string cpu_model(FileSystem& files) {
  try {
    const std::string text = files.read("/proc/cpuinfo");
    const std::size_t key = text.find("model name");
    const std::size_t colon = key == std::string::npos ? key : text.find(": ", key);
    if (colon != std::string::npos) {
      return text.substr(colon + 2, text.find('\n', colon) - colon - 2);
    }
  } catch (const FileError&) {  // not a reason to end a run
  }
  return "unknown";
}

/// One entry a host, in order of their first ranks.
ordered_json hosts_of(const std::vector<std::string>& ranks) {
  ordered_json hosts = ordered_json::array();
  for (const std::string& text : ranks) {
    ordered_json rank = ordered_json::parse(text);
    const auto same = std::ranges::find_if(
        hosts, [&](const ordered_json& host) { return host["host"] == rank["host"]; });
    if (same == hosts.end()) {
      rank["ranks"] = 1;
      hosts.push_back(std::move(rank));
    } else {
      (*same)["ranks"] = (*same)["ranks"].get<int>() + 1;
    }
  }
  return hosts;
}

}  // namespace

ordered_json describe_environment(Job& job, const Topology& topology, const RunStart& start) {
  const ordered_json mine = {{"host", job.transport.host()},
                             {"cpu", cpu_model(job.files)},
                             {"cores", std::thread::hardware_concurrency()},
                             {"threads_per_rank", start.threads}};
  // A host's name may hold anything.
  const std::string text = mine.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
  const std::vector<std::string> ranks = gather(job.transport, 0, text, {"environment"});
  if (ranks.empty()) {
    return nullptr;
  }
  ordered_json node_sizes = ordered_json::array();
  for (int node = 0; node < topology.nodes(); ++node) {
    node_sizes.push_back(topology.ranks_of_node(node).size());
  }
  // Clock counts from anywhere; a person wants the date.
  const auto now =
      std::chrono::time_point_cast<std::chrono::seconds>(std::chrono::system_clock::now());
  return {{"step", start.step},
          {"started", fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(now))},
          {"version", version()},
          {"commit", commit()},
          {"compiler", compiler()},
          {"build_type", build_type()},
          {"mpi", mpi_library()},
          {"ucx", ucx_library()},
          {"ranks", topology.ranks()},
          {"node_sizes", std::move(node_sizes)},
          {"hosts", hosts_of(ranks)}};
}

}  // namespace cartesian
