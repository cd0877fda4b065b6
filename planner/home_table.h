#pragma once
// HomeTable: what a token saves by its id if its home is on a node: how a data loader may choose a
// sequence's home (planner/homes.h), without knowing where the model will route it.
// docs/formats.md describes the file.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/file_system.h"
#include "planner/home_costs.h"

namespace cartesian {

struct HomeTable {
  std::int64_t vocab_size = 0;
  int nodes = 0;
  /// [vocab_size, nodes] copies, in all layers, forward, that a token with the id needs less at
  /// home on the node than at a home anywhere; 0 for ids that were not seen.
  std::vector<float> scores;

  /// Where it comes from, for people.
  std::string flow;
  std::string trace;
  std::string trace_xxh3;
  std::string placement;
  std::string placement_xxh3;
};

/// The scores of a trace's text: by id the mean saving over its n tokens, times n / (n + s2 / t2):
/// shrunk towards nothing where the id is rare, by how much tokens of one id differ (s2) and ids do
/// (t2), both estimated from the trace (Efron and Morris 1973; the moments of an analysis of
/// variance). Throws ConfigError if the trace has no text, or the table would be above 2^28
/// numbers. REQUIRES: `costs` are of this trace.
HomeTable make_home_table(const RoutingTrace& trace, const HomeCosts& costs);

/// Sums over the tokens of sequences of `length` ids, one after the other: [sequences, nodes].
/// REQUIRES: ids within the vocabulary, and of whole sequences.
std::vector<double> sequence_scores(const HomeTable& table, std::span<const std::int32_t> ids,
                                    std::int64_t length);

/// Durable, and whole or not there. Throws FileError.
void save_home_table(FileSystem& files, const Path& path, const HomeTable& table);
/// Throws FileError, or FormatError naming the file on anything missing or malformed.
HomeTable load_home_table(FileSystem& files, const Path& path);

}  // namespace cartesian
