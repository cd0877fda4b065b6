#pragma once
// BegunSum: a sum over a team in parts, so that other work fits in between. Elements are summed
// within nodes, then between them: as few bytes as can be pass between nodes.

#include <memory>
#include <span>
#include <vector>

#include "comm/buffer_pool.h"
#include "comm/collectives.h"
#include "comm/sum_cells.h"

namespace cartesian {

/// Every element is the sum over the nodes, in their order, of the sums over their members, in rank
/// order: the same bits on every rank and in every run. Takes memory for what others send from
/// `buffers`, which must outlive it: less than the array's where nodes have equally many members.
/// Collective over the team, every part: members do the same parts of the same sums in the same
/// order. In every part each member has a byte from every other, so that a wait names a lost one
/// itself, and not somebody who waits for it.
class BegunSum {
 public:
  /// An all-reduce; with shares.bounds a reduce-scatter: a member is sent the sum of its share, and
  /// the rest of its array is garbage. Posts what is summed within nodes. `data` must stay
  /// untouched until done().
  BegunSum(Transport& transport, const Topology& topology, BufferPool& buffers, Shares shares,
           std::span<float> data, CommPhase phase);

  /// Unless done(), waits for what is on its way, adds it up, and posts what follows.
  void advance(const Context& context);
  bool done() const { return request_ == nullptr; }

 private:
  enum class Stage : std::uint8_t { pieces, cells, cells_back, pieces_back, done };

  /// Posts the next stage that this team needs.
  void post_next();
  bool needs(Stage stage) const;
  std::size_t buffer_elements() const;
  MessageGroup pieces_to_holders();
  MessageGroup cells_to_holders();
  MessageGroup cells_to_all() const;
  MessageGroup cells_to_owners() const;
  MessageGroup pieces_to_members() const;
  void post(MessageGroup group);
  /// Of received versions, which lie in the buffer one after the other, and mine.
  void sum_pieces(const Context& context) const;
  void sum_cells(const Context& context) const;

  std::span<float> elements(SumCells::Range range) const {
    return data_.subspan(range.begin, range.size());
  }
  float* buffer() const { return reinterpret_cast<float*>(received_.data()); }
  void send(MessageGroup& group, std::size_t member, std::span<float> values) const;
  void receive(MessageGroup& group, std::size_t member, std::span<float> values) const;

  Transport& transport_;
  Shares shares_;
  std::span<float> data_;
  CommPhase phase_;
  SumCells cells_;
  std::size_t me_;    ///< member
  std::size_t node_;  ///< mine
  std::vector<std::size_t> held_;
  Stage stage_ = Stage::done;
  BufferPool::Lease received_;
  std::vector<std::byte> presence_;   ///< [members]
  std::unique_ptr<Request> request_;  // last, so that it ends before the buffer goes back
};

}  // namespace cartesian
