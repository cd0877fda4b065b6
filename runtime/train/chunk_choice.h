#pragma once
// ChunkChoice: into how many chunks a rank's tokens are split (exchange.chunks), found by trying:
// more chunks hide more of the messages behind the arithmetic, and cost more messages and smaller
// products.

#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/context.h"
#include "comm/transport.h"

namespace cartesian {

/// Not thread-safe. Every rank makes one alike, and its calls are the same on every rank.
class ChunkChoice {
 public:
  /// `configured`: 0 to choose. With one rank nothing is to be hidden, and 1 is chosen at once.
  ChunkChoice(std::int64_t configured, int ranks);

  /// For the next step.
  int chunks() const { return chunks_; }
  /// After every step. Returns what to tell the user when the choice is made, else nothing.
  /// Collective while choosing.
  std::string took(const Context& context, Transport& transport, Seconds step);

 private:
  struct Trial {
    int chunks = 1;
    double least_s = 0;  ///< of its steps, in the mean of the ranks; 0: none yet
  };

  int chunks_;
  std::vector<Trial> trials_;  ///< empty: nothing to choose
  std::int64_t steps_ = 0;     ///< done while choosing
};

}  // namespace cartesian
