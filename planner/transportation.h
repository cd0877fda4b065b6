#pragma once
// The transportation problem (Hitchcock 1941): rows to columns with room for so many each, at the
// largest gain. Solved exactly by successive shortest paths: rows come one after the other, and
// each takes the cheapest chain of moves that ends in a column with room, which leaves no better
// assignment of the rows so far (Ahuja, Magnanti and Orlin, Network Flows, 9.7). A chain goes from
// column to column by the row that loses least, so a row costs about columns^2 steps, however many
// rows there are.

#include <cstdint>
#include <span>
#include <vector>

namespace cartesian {

/// The column of each row, so that the sum of gains is the largest that there is and column c has
/// at most room[c] rows. gains: [rows, columns]. Sums are kept in integers, and so the same on any
/// machine. REQUIRES: as much room as rows, and sums of gains that an int64 holds.
std::vector<int> assign_rows(std::span<const std::int64_t> gains, std::span<const int> room);

}  // namespace cartesian
