#pragma once
// Nodes that are alike can change names: which names leave most experts where they were.

#include <cstdint>
#include <span>
#include <vector>

namespace cartesian {

/// `nodes` with the labels of nodes of equal `sizes` exchanged so that as many experts as possible
/// are on the node that `was` says: an assignment problem, solved exactly. [experts], [experts],
/// [nodes].
std::vector<int> align_labels(std::span<const int> nodes, std::span<const int> was,
                              std::span<const int> sizes);

/// The same by what every name gains for every node, `gains`: [nodes now][name].
std::vector<int> align_labels_by(std::span<const int> nodes, std::span<const std::int64_t> gains,
                                 std::span<const int> sizes);

}  // namespace cartesian
