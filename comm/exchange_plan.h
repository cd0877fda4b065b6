#pragma once
// ExchangePlan: who sends which rows where, for one chunk of tokens in one sub-layer.
//
// A token's row is at its *source* (A's tokens at home, B's at the pivot), visits the nodes of its
// experts, and ends at its *target* (A's at the pivot, B's at home). On every node that it visits
// one rank is its rail (Topology::rail(); the source and the target are rails of their own nodes):
//
//   source --to_rails--> rails --to_experts--> experts, and back to the rails --to_targets-->
//   target
//
// Rows go once to each rail and once from it; within the node once to and from each rank: these
// rows are *records*. In the flat flow the source is the only rail, and every choice is a record.
// Backward goes the same ways in reverse.

#include <cstdint>
#include <memory>
#include <vector>

#include "base/itinerary.h"
#include "comm/hop.h"

namespace cartesian {

/// A token where it is routed. Valid indices of a micro-batch fit 32 bits.
struct SourceToken {
  std::int32_t token = 0;  ///< index within the global micro-batch
  std::int32_t home = 0;   ///< rank
  std::int32_t tag = 0;    ///< the caller's, travels along
};

/// A token on one of its rails.
struct RailToken {
  SourceToken source;
  std::int32_t target = 0;    ///< rank
  float shared_weight = 0;    ///< of the shared expert, for the finisher
  std::int16_t choices = 0;   ///< of experts on ranks that this rail serves
  std::int16_t finishes = 0;  ///< 1: this rail adds the residual and the shared expert
};

/// A choice on its rail.
struct RailChoice {
  std::int32_t expert = 0;
  std::int32_t rank = 0;
  float gate = 0;
};

/// The choices of one record: consecutive ones of its rail.
struct Record {
  std::int64_t first = 0;  ///< among ExchangePlan::rail_choices
  std::int64_t count = 0;
};

/// Filled in step by step; what is complete after which call of Exchange is said at each part.
struct ExchangePlan {
  int block = 0;  ///< for error messages
  int layer = 0;
  int group = 0;
  int choices = 0;             ///< k
  bool to_pivots = false;      ///< targets are pivots, else homes
  bool finds_targets = false;  ///< rails tell the targets, else targets are the sources

  // Sources, after begin_plan().
  std::int64_t sources = 0;
  Hop to_rails;                               ///< from: source rows; to: rails
  std::vector<RailToken> tokens_sent;         ///< [rows sent], until begin_spread()
  std::vector<RailChoice> choices_sent;       ///< likewise, theirs
  std::vector<std::int64_t> choices_to;       ///< [ranks]
  std::vector<std::int16_t> choices_of_sent;  ///< [rows sent]
  std::vector<std::int64_t> choices_from;     ///< [ranks], after finish_plan()
  /// Columns of the choices as they lie on the rails, the sources' own first, then those sent.
  std::vector<std::int32_t> columns;

  // Rails, after finish_spread().
  std::vector<RailToken> rails;                  ///< the sources, then those that arrived
  std::vector<RailChoice> rail_choices;          ///< by rail, in the order in which sums add them
  std::vector<std::int64_t> rail_choice_begins;  ///< [rails + 1]
  Hop to_experts;                                ///< from: rails; to: records
  std::vector<Record> records;                   ///< [rows sent]
  std::vector<std::int64_t> rail_records;        ///< of `records`, by rail, in order of sums
  std::vector<std::int64_t> rail_record_begins;  ///< [rails + 1]
  std::vector<std::int64_t> entries_to;          ///< [ranks] choices of the records
  std::vector<std::int64_t> entries_from;        ///< [ranks], after finish_plan()

  // Experts, after finish_hand_out(). Rows lie by slot, those of a slot by record; every slot is
  // padded to padded_row_count().
  std::vector<std::int64_t> record_begins;  ///< [records + 1] into entry_rows
  std::vector<std::int32_t> entry_rows;     ///< padded row of every choice of a record
  std::vector<std::int64_t> slot_offsets;   ///< [slots + 1] padded rows
  std::vector<std::int64_t> slot_rows;      ///< [slots] real rows
  std::int64_t padded_rows = 0;

  // Targets, after finish_return(); `targets` and `target_rails` after finish_spread().
  std::int64_t first_home_token = 0;  ///< of this rank's chunk
  std::int64_t targets = 0;
  std::vector<std::int32_t> target_rails;  ///< [targets] this rank's rails of them, if to_pivots
  Hop to_targets;                          ///< from: rails; to: target rows
  std::unique_ptr<Request> counting;       ///< of the rows that rails will send here, on its way
};

/// Rows are padded per slot to a multiple of this: 16 up to 512 rows, then a thirty-second of the
/// next power of two.
std::int64_t padded_row_count(std::int64_t rows);

}  // namespace cartesian
