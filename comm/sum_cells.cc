#include "comm/sum_cells.h"

#include <algorithm>
#include <map>

namespace cartesian {

namespace {

constexpr std::size_t kLineElements = 16;  // floats of a cache line

}  // namespace

SumCells::SumCells(const Team& team, const Topology& topology, std::size_t elements)
    : elements_(elements) {
  std::map<int, std::size_t> numbers;
  for (std::size_t member = 0; member < team.ranks.size(); ++member) {
    const int node = topology.node(team.ranks[member]);
    const std::size_t number = numbers.try_emplace(node, numbers.size()).first->second;
    members_of_.resize(numbers.size());
    members_of_[number].push_back(member);
    node_of_.push_back(number);
    pieces_ = std::max(pieces_, members_of_[number].size());
  }
}

std::vector<std::size_t> SumCells::pieces_held_by(std::size_t member) const {
  std::vector<std::size_t> held;
  for (std::size_t piece = 0; piece < pieces_; ++piece) {
    if (holder(node_of(member), piece) == member) {
      held.push_back(piece);
    }
  }
  return held;
}

SumCells::Range SumCells::part(Range range, std::size_t index, std::size_t count) {
  const std::size_t even = (range.size() + count - 1) / count;
  const std::size_t length = (even + kLineElements - 1) / kLineElements * kLineElements;
  return {std::min(range.begin + index * length, range.end),
          std::min(range.begin + (index + 1) * length, range.end)};
}

}  // namespace cartesian
