// In place of ucx_transport.cc in a build without UCX.

#include "base/error.h"
#include "comm/ucx_transport.h"

namespace cartesian {

bool ucx_available() { return false; }

std::string ucx_library() { return "none"; }

std::unique_ptr<Transport> make_ucx_transport(Bootstrap&, const TransportOptions&) {
  throw ConfigError(
      "this build has no UCX: build with -DCARTESIAN_UCX=ON where libucx-dev is installed, or use "
      "another comm.intra and comm.inter");
}

}  // namespace cartesian
