#include "runtime/bench/group_meter.h"

#include <algorithm>

#include "base/check.h"
#include "base/index.h"

namespace cartesian {

void GroupMeter::count(const MessageGroup& group) {
  const std::size_t first = bytes_.size();
  bytes_.resize(first + as_index(size()));
  for (const SendOp& send : group.sends) {
    bytes_[first + as_index(send.peer)] += static_cast<double>(send.bytes.size());
  }
}

double busiest_link_bytes(std::span<const std::vector<double>> sent, const Topology& topology) {
  const auto ranks = as_index(topology.ranks());
  check(sent.size() == ranks, "every rank says what it sent");
  double sum = 0;
  for (std::size_t first = 0; first < sent.front().size(); first += ranks) {
    std::vector<double> out(as_index(topology.nodes()));
    std::vector<double> in(out.size());
    for (std::size_t from = 0; from < ranks; ++from) {
      check(sent[from].size() == sent.front().size(), "all ranks post the same groups");
      for (std::size_t to = 0; to < ranks; ++to) {
        const auto sender = as_index(topology.node(static_cast<int>(from)));
        const auto receiver = as_index(topology.node(static_cast<int>(to)));
        if (sender != receiver) {
          out[sender] += sent[from][first + to];
          in[receiver] += sent[from][first + to];
        }
      }
    }
    sum += std::max(*std::ranges::max_element(out), *std::ranges::max_element(in));
  }
  return sum;
}

}  // namespace cartesian
