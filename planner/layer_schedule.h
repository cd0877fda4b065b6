#pragma once
// LayerSchedule: what one MoE layer makes every rank compute and send in a step, chunk by chunk:
// the tokens' rows (planner/token_router.h, base/messages.h) added up to messages between stages.
//
// A rank goes through the stages of a chunk in order:
//
//   home       sends the rows that live here to their A nodes' rails and A experts on its own node
//   a_relay    as a rail, hands rows that came from other nodes to A experts' ranks
//   a_experts  computes, sends outputs to rails, or to pivots on its own node
//   a_gather   as a rail, sends the node's sums to pivots on other nodes
//   pivot      adds up, routes B, sends rows on their way to B
//   b_relay, b_experts, b_gather   likewise, towards home
//   finish     has the layer's outputs
//
// In the flat flow rows go past rails. A layer with one sub-layer ends at the pivot, which is home.
// Backward goes through the stages, and messages, in reverse.

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "planner/token_router.h"

namespace cartesian {

enum class Stage : std::uint8_t {
  home,
  a_relay,
  a_experts,
  a_gather,
  pivot,
  b_relay,
  b_experts,
  b_gather,
  finish
};
inline constexpr int kMostStages = 9;
inline constexpr int kMostChunks = 4096;

/// Where a trace's tokens live, and the chunk of its home's tokens that each is in.
struct TokenSplit {
  std::vector<std::int32_t> home;   ///< [tokens] ranks
  std::vector<std::int32_t> chunk;  ///< [tokens]
  int chunks = 1;
};

/// By the trace's homes, or else the same number of consecutive tokens, give or take one, on every
/// rank; each rank's tokens in `chunks` such parts. Throws ConfigError if a home is not a rank.
TokenSplit split_tokens(const RoutingTrace& trace, int ranks, int chunks);

/// Immutable, thread-safe.
class LayerSchedule {
 public:
  struct Message {
    std::int32_t from = 0;  ///< in forward
    std::int32_t to = 0;
    std::uint32_t rows = 0;
    std::uint16_t chunk = 0;
    Stage sent{};  ///< by `from`, at the end of this stage
    Stage received{};
  };
  /// Rows to compute with.
  struct Work {
    std::array<std::uint32_t, 2> experts{};  ///< (token, choice) pairs of A, B
    std::array<std::uint32_t, 2> shared{};   ///< tokens whose pivot, finisher is here
    std::uint32_t pivots = 0;                ///< tokens to route B for
  };

  /// `index` and PivotRule are as in TokenRouter. REQUIRES: at most kMostChunks chunks.
  LayerSchedule(const LayerTrace& layer, int index, const TokenSplit& split,
                const Placement& placement, const Topology& topology, Flow flow, PivotRule rule);

  int groups() const { return groups_; }
  int chunks() const { return chunks_; }
  int stages() const { return 4 * groups_ + 1; }
  const std::vector<Message>& messages() const { return messages_; }
  /// Numbers of the messages that a rank sends, or receives, at a stage: nearest peer above first,
  /// so that ranks do not all begin with the same.
  std::span<const std::uint32_t> sent(int chunk, Stage stage, int rank) const {
    return at(sent_, chunk, stage, rank);
  }
  std::span<const std::uint32_t> received(int chunk, Stage stage, int rank) const {
    return at(received_, chunk, stage, rank);
  }
  const Work& work(int chunk, int rank) const { return work_[cell(chunk, rank)]; }

 private:
  /// Numbers of messages, sorted by cells.
  struct Index {
    std::vector<std::uint32_t> first;  ///< [cells + 1] into `numbers`
    std::vector<std::uint32_t> numbers;
  };
  std::size_t cell(int chunk, int rank) const;
  std::size_t cell(int chunk, Stage stage, int rank) const;
  std::span<const std::uint32_t> at(const Index& index, int chunk, Stage stage, int rank) const;
  void add_work(const TokenRoute& route, Flow flow, int chunk, const Topology& topology);
  Index make_index(bool of_senders) const;

  int groups_;
  int chunks_;
  int ranks_;
  std::vector<Message> messages_;
  Index sent_;
  Index received_;
  std::vector<Work> work_;  // [chunks][ranks]
};

}  // namespace cartesian
