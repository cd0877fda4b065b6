// What another project does with the installed package: an op on two ranks that are threads, and a
// sum over them.

#include <array>
#include <cstdio>

#include "base/context.h"
#include "comm/collectives.h"
#include "comm/local_transport.h"
#include "kernels/elementwise.h"

namespace {

void run_rank(cartesian::Transport& transport) {
  using namespace cartesian;
}

}  // namespace

int main() {
  cartesian::run_local_ranks(2, run_rank);
}
