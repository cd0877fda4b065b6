#include "planner/transportation.h"

#include <functional>
#include <limits>
#include <numeric>
#include <queue>
#include <utility>

#include "base/check.h"
#include "base/index.h"

namespace cartesian {

namespace {

constexpr std::int64_t kFar = std::numeric_limits<std::int64_t>::max() / 4;

class Assignment {
 public:
  Assignment(std::span<const std::int64_t> gains, std::span<const int> room)
      : columns_(room.size()),
        gains_(gains),
        room_(room.begin(), room.end()),
        moves_(columns_ * columns_),
        cheapest_(columns_ * columns_, kFar) {}

  std::vector<int> run(std::size_t rows) {
    column_of_.assign(rows, -1);
    for (std::size_t row = 0; row < rows; ++row) {
      add(row);
    }
    return std::move(column_of_);
  }

 private:
  using Move = std::pair<std::int64_t, std::size_t>;  // what it loses, the row
  using Moves = std::priority_queue<Move, std::vector<Move>, std::greater<>>;

  std::int64_t gain(std::size_t row, std::size_t column) const {
    return gains_[row * columns_ + column];
  }

  void add(std::size_t row) {
    // What the rows lose in all if this one ends a chain of moves with one more in that column.
    std::vector<std::int64_t> loss(columns_);
    std::vector<std::size_t> before(columns_, columns_);  // columns_: the chain begins here
    for (std::size_t column = 0; column < columns_; ++column) {
      loss[column] = -gain(row, column);
    }
    for (bool better = true; better;) {  // Bellman and Ford; there is no chain that only gains
      better = false;
      for (std::size_t from = 0; from < columns_; ++from) {
        for (std::size_t to = 0; to < columns_; ++to) {
          const std::int64_t moved = loss[from] + cheapest_[from * columns_ + to];
          if (moved < loss[to]) {
            loss[to] = moved;
            before[to] = from;
            better = true;
          }
        }
      }
    }
    std::size_t last = columns_;
    for (std::size_t column = 0; column < columns_; ++column) {
      if (room_[column] > 0 && (last == columns_ || loss[column] < loss[last])) {
        last = column;
      }
    }
    --room_[last];
    move_along(row, last, before);
  }

  /// Moves a row along each link of the chain that ends at `to`, and `row` to its beginning.
  void move_along(std::size_t row, std::size_t to, const std::vector<std::size_t>& before) {
    std::vector<std::size_t> changed = {to};
    while (before[to] != columns_) {
      const std::size_t from = before[to];
      place(moves_[from * columns_ + to].top().second, to);
      to = from;
      changed.push_back(to);
    }
    place(row, to);
    for (const std::size_t column : changed) {
      refresh(column);
    }
  }

  void place(std::size_t row, std::size_t column) {
    column_of_[row] = static_cast<int>(column);
    for (std::size_t other = 0; other < columns_; ++other) {
      if (other != column) {
        moves_[column * columns_ + other].emplace(gain(row, column) - gain(row, other), row);
      }
    }
  }

  /// Forgets moves of rows that have left the column.
  void refresh(std::size_t column) {
    for (std::size_t other = 0; other < columns_; ++other) {
      Moves& moves = moves_[column * columns_ + other];
      while (!moves.empty() && column_of_[moves.top().second] != static_cast<int>(column)) {
        moves.pop();
      }
      cheapest_[column * columns_ + other] = moves.empty() ? kFar : moves.top().first;
    }
  }

  std::size_t columns_;
  std::span<const std::int64_t> gains_;
  std::vector<int> room_;  // that is left
  std::vector<int> column_of_;
  std::vector<Moves> moves_;            // [columns, columns] from one to another
  std::vector<std::int64_t> cheapest_;  // the least that a row loses by it
};

}  // namespace

std::vector<int> assign_rows(std::span<const std::int64_t> gains, std::span<const int> room) {
  const std::size_t rows = room.empty() ? 0 : gains.size() / room.size();
  check(gains.size() == rows * room.size(), "a gain for every row and column");
  check(std::reduce(room.begin(), room.end(), std::int64_t{0}) >= static_cast<std::int64_t>(rows),
        "room for every row");
  return Assignment(gains, room).run(rows);
}

}  // namespace cartesian
