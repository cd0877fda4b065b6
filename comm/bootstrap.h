#pragma once
// Bootstrap: what a transport needs in order to start, from whatever started the processes: who
// this rank is, and one way to tell the others a few bytes, such as the address it listens on.
// A trainer that brings its own store of keys and values implements this over it.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"

namespace cartesian {

class Transport;

class Bootstrap {
 public:
  virtual ~Bootstrap() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// result[i] is what rank i contributed; sizes may differ. Collective. Throws CommError if not
  /// all have contributed within `timeout`.
  virtual std::vector<std::string> all_gather(std::string_view mine, Seconds timeout) = 0;
};

/// Over a transport that works already: MPI's between processes, the local one between threads.
/// Sets its timeout to the one that all_gather() is given. `transport` must outlive the result.
std::unique_ptr<Bootstrap> make_bootstrap(Transport& transport);

}  // namespace cartesian
