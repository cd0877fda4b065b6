// In builds without METIS.

#include "base/check.h"
#include "bench/metis_peer.h"

namespace cartesian::bench {

bool has_metis() { return false; }

void cut_by_metis(Partition& /*partition*/, const MetisOptions& /*options*/) {
  check(false, "this build has METIS");
}

}  // namespace cartesian::bench
