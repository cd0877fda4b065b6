#include "planner/label_alignment.h"

#include <algorithm>
#include <limits>

#include "base/check.h"
#include "base/index.h"

namespace cartesian {

namespace {

/// The columns that rows are assigned to at least cost: shortest augmenting paths with potentials
/// (Jonker and Volgenant 1987). costs: [n][n].
std::vector<int> assign_rows(const std::vector<std::int64_t>& costs, std::size_t n) {
  constexpr std::int64_t kFar = std::numeric_limits<std::int64_t>::max() / 4;
  // Rows and columns are numbered from 1; column 0 holds the row that is being assigned.
  std::vector<std::int64_t> of_row(n + 1);
  std::vector<std::int64_t> of_column(n + 1);
  std::vector<std::size_t> row_of(n + 1);
  std::vector<std::size_t> before(n + 1);
  for (std::size_t row = 1; row <= n; ++row) {
    std::vector<std::int64_t> distance(n + 1, kFar);
    std::vector<bool> done(n + 1);
    row_of[0] = row;
    std::size_t column = 0;
    while (row_of[column] != 0) {
      done[column] = true;
      const std::size_t from = row_of[column];
      std::int64_t step = kFar;
      std::size_t next = 0;
      for (std::size_t other = 1; other <= n; ++other) {
        if (done[other]) {
          continue;
        }
        const std::int64_t reduced =
            costs[(from - 1) * n + other - 1] - of_row[from] - of_column[other];
        if (reduced < distance[other]) {
          distance[other] = reduced;
          before[other] = column;
        }
        if (distance[other] < step) {
          step = distance[other];
          next = other;
        }
      }
      for (std::size_t other = 0; other <= n; ++other) {
        if (done[other]) {
          of_row[row_of[other]] += step;
          of_column[other] -= step;
        } else {
          distance[other] -= step;
        }
      }
      column = next;
    }
    while (column != 0) {
      row_of[column] = row_of[before[column]];
      column = before[column];
    }
  }
  std::vector<int> columns(n);
  for (std::size_t column = 1; column <= n; ++column) {
    columns[row_of[column] - 1] = static_cast<int>(column - 1);
  }
  return columns;
}

}  // namespace

std::vector<int> align_labels_by(std::span<const int> nodes, std::span<const std::int64_t> gains,
                                 std::span<const int> sizes) {
  const std::size_t n = sizes.size();
  check(gains.size() == n * n, "a gain for every node and name");
  const std::int64_t most = gains.empty() ? 0 : std::ranges::max(gains);
  const auto never = most * static_cast<std::int64_t>(n) + 1;
  std::vector<std::int64_t> costs(n * n);
  for (std::size_t a = 0; a < n; ++a) {
    for (std::size_t b = 0; b < n; ++b) {
      costs[a * n + b] = (sizes[a] == sizes[b] ? 0 : never) - gains[a * n + b];
    }
  }
  const std::vector<int> label = assign_rows(costs, n);
  std::vector<int> aligned;
  for (const int node : nodes) {
    aligned.push_back(label[as_index(node)]);
  }
  return aligned;
}

std::vector<int> align_labels(std::span<const int> nodes, std::span<const int> was,
                              std::span<const int> sizes) {
  check(nodes.size() == was.size(), "a node for every expert");
  const std::size_t n = sizes.size();
  std::vector<std::int64_t> gains(n * n);
  for (std::size_t expert = 0; expert < nodes.size(); ++expert) {
    ++gains[as_index(nodes[expert]) * n + as_index(was[expert])];
  }
  return align_labels_by(nodes, gains, sizes);
}

}  // namespace cartesian
