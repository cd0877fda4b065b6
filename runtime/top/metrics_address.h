#pragma once
// MetricsAddress: where a job's metrics are served. MetricsTarget: how a person names that.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/file_system.h"

namespace cartesian {

struct MetricsAddress {
  std::string host;  ///< a name, or numeric without brackets
  std::uint16_t port = 0;

  /// HOST:PORT, with brackets around a host that has colons.
  std::string text() const;
  bool operator==(const MetricsAddress&) const = default;
};

/// HOST:PORT or [HOST]:PORT, with or without http:// before it and / or /metrics behind it.
std::optional<MetricsAddress> parse_metrics_address(std::string_view text);

/// An address, or a run directory that has one while its job runs.
class MetricsTarget {
 public:
  /// Throws ConfigError if `name` is neither an address nor a directory. `files` must outlive it.
  MetricsTarget(FileSystem& files, const std::string& name);

  bool is_directory() const { return !fixed_; }
  /// As the person named it.
  const std::string& name() const { return name_; }
  /// The address now; nothing if the run directory has none. Throws FormatError, FileError.
  std::optional<MetricsAddress> find() const;

 private:
  FileSystem& files_;
  std::string name_;
  std::optional<MetricsAddress> fixed_;
};

}  // namespace cartesian
