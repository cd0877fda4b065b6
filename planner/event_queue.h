#pragma once
// EventQueue: what happens next in a simulation. Events of one time come out in the order in which
// they were put in, so a simulation is deterministic. Not thread-safe.

#include <cstdint>
#include <functional>
#include <queue>
#include <vector>

namespace cartesian {

template <class Event>
class EventQueue {
 public:
  struct Entry {
    double time_s;
    std::uint64_t number;
    Event event;
    bool operator>(const Entry& other) const {
      return time_s != other.time_s ? time_s > other.time_s : number > other.number;
    }
  };

  bool empty() const { return entries_.empty(); }
  void push(double time_s, const Event& event) { entries_.push({time_s, pushed_++, event}); }
  /// The earliest. REQUIRES: not empty.
  Entry pop() {
    const Entry entry = entries_.top();
    entries_.pop();
    return entry;
  }

 private:
  std::uint64_t pushed_ = 0;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> entries_;
};

}  // namespace cartesian
