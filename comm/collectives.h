#pragma once
// Collectives, written once over Transport. Sums run in rank order, so a result has the same bits
// on every rank and in every run. All are Collective over `team`: every member calls them in the
// same order; others do not take part.

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/context.h"
#include "comm/transport.h"

namespace cartesian {

/// Ranks that take part, ascending.
struct Team {
  std::vector<int> ranks;
  static Team world(const Transport& transport);
  /// Position of `rank` in `ranks`, or -1.
  int index_of(int rank) const;
};

/// data[i] becomes the sum over the team, added in rank order in the type of `data`. Small arrays:
/// all-gather and sum; large: reduce-scatter, then all-gather, every chunk summed by one rank, so
/// that each rank sends n * 2 * (R - 1) / R elements. Scratch is bounded whatever the size.
void all_reduce_sum(const Context& context, Transport& transport, const Team& team,
                    std::span<float> data, CommPhase phase = {"all_reduce"});
void all_reduce_sum(const Context& context, Transport& transport, const Team& team,
                    std::span<double> data, CommPhase phase = {"all_reduce"});

/// Who has which part of an array: member r of the team elements [bounds[r], bounds[r + 1]).
struct Shares {
  Team team;
  std::vector<std::size_t> bounds;
};

/// The caller's share of `data` becomes the sum over the team, with the bits that all_reduce_sum()
/// gives; the rest stays as it was. all_gather_shares(): every share becomes what it is on the
/// member that has it. Both after another send what a large all_reduce_sum() does. Scratch is
/// bounded whatever the size.
void reduce_scatter_sum(const Context& context, Transport& transport, const Shares& shares,
                        std::span<float> data, CommPhase phase = {"reduce_scatter"});
void all_gather_shares(Transport& transport, const Shares& shares, std::span<float> data,
                       CommPhase phase = {"all_gather"});

/// result[i] is what rank i contributed; sizes may differ. Over the whole world.
std::vector<std::string> all_gather(Transport& transport, std::string_view mine,
                                    CommPhase phase = {"all_gather"});

/// On rank `root`: result[i] is what rank i contributed; sizes may differ. Elsewhere empty. Over
/// the whole world.
std::vector<std::string> gather(Transport& transport, int root, std::string_view mine,
                                CommPhase phase = {"gather"});

/// `bytes` becomes what it is on rank `root`. Over the whole world.
void broadcast(Transport& transport, int root, std::string& bytes, CommPhase phase = {"broadcast"});

/// Nobody returns before everybody has called.
void barrier(Transport& transport, CommPhase phase = {"barrier"});

/// Runs `work` on every rank; if it throws on any, throws on every rank an error of the same kind
/// (ConfigError, FormatError, FileError, NumericError, else Error) whose text is that of the lowest
/// rank that failed, prefixed by "rank R: " unless all ranks failed with the same text. The way to
/// do what may fail on one rank only (reading files, checking settings) without a hang. A CommError
/// in `work` is thrown on at once: nothing can be agreed then.
void agree(Transport& transport, CommPhase phase, const std::function<void()>& work);
/// Returns once done() is true on every rank, however long that takes: the ranks keep telling each
/// other that they are there.
void wait_patiently(Transport& transport, CommPhase phase, const std::function<bool()>& done);
/// As agree(), for work that may take longer than a wait's deadline (reading or writing whole
/// files), on some ranks or on all: it runs on a thread of its own, while the ranks keep telling
/// each other that they are there. `work` must not use the transport. If another rank is lost
/// meanwhile, that is thrown when `work` has ended here.
void agree_patiently(Transport& transport, CommPhase phase, const std::function<void()>& work);

}  // namespace cartesian
