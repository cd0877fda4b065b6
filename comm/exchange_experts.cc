// Between rails and experts, within a node (flat: anywhere): rows handed out, sums collected.

#include <algorithm>
#include <limits>
#include <numeric>

#include "comm/exchange_step.h"

namespace cartesian {

namespace {

constexpr std::string_view kHandOut = "hand out";
constexpr std::string_view kHandOutAgain = "hand out again";
constexpr std::string_view kCollect = "collect";

/// A choice of a record in a message.
struct Entry {
  std::int16_t expert = 0;
  std::int16_t last = 0;  ///< 1: of its record
  float gate = 0;
};

std::vector<std::size_t> bytes_of(const std::vector<std::int64_t>& counts, std::size_t size) {
  std::vector<std::size_t> bytes;
  for (const std::int64_t count : counts) {
    bytes.push_back(as_index(count) * size);
  }
  return bytes;
}

/// Where the rank's own records begin among those sent, and among those received.
struct OwnRecords {
  std::int64_t sent = 0;
  std::int64_t received = 0;
  std::int64_t count = 0;
  std::int64_t arrival(std::int64_t record) const { return record - sent + received; }
  bool contains(std::int64_t record) const { return record >= sent && record < sent + count; }
};

OwnRecords own_records(const ExchangePlan& plan, int me) {
  const auto before = [&](const std::vector<std::int64_t>& counts) {
    return std::reduce(counts.begin(), counts.begin() + me);
  };
  return {before(plan.to_experts.sent), before(plan.to_experts.received),
          plan.to_experts.sent[as_index(me)]};
}

/// What arrives for this rank's experts, by record.
struct Arrivals {
  std::vector<std::int32_t> slots;  ///< of each entry
  std::vector<float> gates;
};

Arrivals read_records(const HopStep& step, int ranks, std::span<const int> experts,
                      ExchangePlan& plan) {
  Arrivals arrivals;
  plan.record_begins.assign(1, 0);
  for (int rank = 0; rank < ranks; ++rank) {
    Reader reader(step.hop.extra_from(rank));
    for (std::int64_t i = 0; i < plan.entries_from[as_index(rank)]; ++i) {
      const auto entry = reader.take<Entry>();
      const auto found = std::ranges::lower_bound(experts, int{entry.expert});
      check(found != experts.end() && *found == entry.expert, "rows come to their experts' ranks");
      arrivals.slots.push_back(static_cast<std::int32_t>(found - experts.begin()));
      arrivals.gates.push_back(entry.gate);
      if (entry.last != 0) {
        plan.record_begins.push_back(static_cast<std::int64_t>(arrivals.slots.size()));
      }
    }
  }
  return arrivals;
}

/// Gives every entry its padded row.
void lay_out_slots(std::span<const std::int32_t> slots, std::size_t slot_count,
                   ExchangePlan& plan) {
  plan.slot_rows.assign(slot_count, 0);
  for (const std::int32_t slot : slots) {
    ++plan.slot_rows[as_index(slot)];
  }
  plan.slot_offsets.assign(1, 0);
  for (const std::int64_t rows : plan.slot_rows) {
    plan.slot_offsets.push_back(plan.slot_offsets.back() + padded_row_count(rows));
  }
  plan.padded_rows = plan.slot_offsets.back();
  check(plan.padded_rows <= std::numeric_limits<std::int32_t>::max(),
        "a rank's received rows fit 32 bits");
  std::vector<std::int64_t> next(plan.slot_offsets.begin(), plan.slot_offsets.end() - 1);
  plan.entry_rows.clear();
  for (const std::int32_t slot : slots) {
    plan.entry_rows.push_back(static_cast<std::int32_t>(next[as_index(slot)]++));
  }
}

}  // namespace

TransferPtr Exchange::begin_hand_out(const Context& context, ExchangePlan& plan, DType dtype,
                                     std::int64_t hidden, RowSources rows) {
  check(rows.size() == plan.rails.size(), "every rail has its row");
  const bool again = !plan.record_begins.empty();
  const std::size_t row_bytes = bytes_of_rows(dtype, hidden);
  HopSizes sizes{
      .sent = plan.to_experts.sent, .received = plan.to_experts.received, .row_bytes = row_bytes};
  if (!again) {
    sizes.extra_sent = bytes_of(plan.entries_to, sizeof(Entry));
    sizes.extra_received = bytes_of(plan.entries_from, sizeof(Entry));
  }
  auto step =
      std::make_unique<HopStep>(again ? kHandOutAgain : kHandOut, new_transfer(context, sizes));
  step->dtype = dtype;
  step->hidden = hidden;
  for (const std::int32_t rail : plan.to_experts.from) {
    step->held.push_back(rows[as_index(rail)]);
  }
  copy_rows(context, step->held, step->hop.outgoing(), row_bytes);
  std::size_t at = 0;
  for (int rank = 0; rank < transport_.size() && !again; ++rank) {
    Writer writer(step->hop.extra_to(rank));
    for (std::int64_t i = 0; i < plan.to_experts.sent[as_index(rank)]; ++i) {
      const Record& record = plan.records[at++];
      for (std::int64_t j = 0; j < record.count; ++j) {
        const RailChoice& choice = plan.rail_choices[as_index(record.first + j)];
        writer.put(Entry{static_cast<std::int16_t>(choice.expert),
                         static_cast<std::int16_t>(j + 1 == record.count ? 1 : 0), choice.gate});
      }
    }
  }
  step->hop.post({"dispatch", plan.block});
  if (!again) {
    begin_counting(plan);
  }
  return step;
}

Rows Exchange::finish_hand_out(const Context& context, Arena& arena, ExchangePlan& plan,
                               TransferPtr transfer) {
  const bool again = !plan.record_begins.empty();
  HopStep& step = step_of(transfer, again ? kHandOutAgain : kHandOut);
  Arrivals arrivals;
  if (!again) {
    const auto experts = placement_.experts_on(plan.layer, plan.group, transport_.rank());
    arrivals = read_records(step, transport_.size(), experts, plan);
    lay_out_slots(arrivals.slots, experts.size(), plan);
  }
  const OwnRecords own = own_records(plan, transport_.rank());
  const auto arrived = step.hop.arrived();
  check(plan.record_begins.size() == arrived.size() + 1, "every row that arrives has its choices");
  std::vector<const std::byte*> from(as_index(plan.padded_rows));
  for (std::size_t record = 0; record < arrived.size(); ++record) {
    const auto i = static_cast<std::int64_t>(record);
    const std::byte* row = arrived[record] != nullptr
                               ? arrived[record]
                               : step.held[as_index(i - own.received + own.sent)];
    for (std::int64_t j = plan.record_begins[record]; j < plan.record_begins[record + 1]; ++j) {
      from[as_index(plan.entry_rows[as_index(j)])] = row;
    }
  }
  Rows result{arena.tensor(step.dtype, {plan.padded_rows, step.hidden}), {}};
  copy_rows(context, from, row_targets(result.values), bytes_of_rows(step.dtype, step.hidden));
  if (!again) {
    result.scalars = arena.zeros(DType::f32, {plan.padded_rows});
    for (std::size_t j = 0; j < arrivals.gates.size(); ++j) {
      result.scalars.data<float>()[plan.entry_rows[j]] = arrivals.gates[j];
    }
  }
  return result;
}

TransferPtr Exchange::begin_collect(const Context& context, const ExchangePlan& plan,
                                    const Rows& rows) {
  check(rows.values.rows() == plan.padded_rows, "every expert's row is there");
  const bool scalars = rows.scalars.defined();
  const std::size_t row_bytes = bytes_of_rows(rows.values.dtype(), rows.values.cols());
  HopSizes sizes{
      .sent = plan.to_experts.received, .received = plan.to_experts.sent, .row_bytes = row_bytes};
  if (scalars) {
    sizes.extra_sent = bytes_of(plan.entries_from, sizeof(float));
    sizes.extra_received = bytes_of(plan.entries_to, sizeof(float));
  }
  auto step = std::make_unique<HopStep>(kCollect, new_transfer(context, sizes));
  step->rows = rows;
  const std::vector<const std::byte*> addresses = row_sources(rows.values);
  std::vector<const std::byte*> terms;
  for (const std::int32_t row : plan.entry_rows) {
    terms.push_back(addresses[as_index(row)]);
  }
  sum_rows(context, rows.values.dtype(), rows.values.cols(), plan.record_begins, terms,
           step->hop.outgoing());
  if (scalars) {
    std::size_t entry = 0;
    for (int rank = 0; rank < transport_.size(); ++rank) {
      Writer writer(step->hop.extra_to(rank));
      for (std::int64_t i = 0; i < plan.entries_from[as_index(rank)]; ++i) {
        writer.put(rows.scalars.data<float>()[plan.entry_rows[entry++]]);
      }
    }
  }
  step->hop.post({"combine", plan.block});
  return step;
}

std::vector<float> Exchange::finish_collect(const Context& context, const ExchangePlan& plan,
                                            TransferPtr transfer, RowTargets rails,
                                            std::span<const std::uint8_t> fresh) {
  HopStep& step = step_of(transfer, kCollect);
  check(rails.size() == plan.rails.size() && fresh.size() == rails.size(),
        "every rail has its row");
  const Tensor& values = step.rows.values;
  const std::vector<const std::byte*> own_rows = row_sources(values);
  const OwnRecords own = own_records(plan, transport_.rank());
  std::vector<std::int64_t> begins(1, 0);
  std::vector<const std::byte*> terms;
  for (std::size_t rail = 0; rail < rails.size(); ++rail) {
    if (fresh[rail] == 0) {
      terms.push_back(rails[rail]);
    }
    for (std::int64_t i = plan.rail_record_begins[rail]; i < plan.rail_record_begins[rail + 1];
         ++i) {
      const std::int64_t record = plan.rail_records[as_index(i)];
      if (!own.contains(record)) {
        terms.push_back(step.hop.arrived()[as_index(record)]);
        continue;
      }
      const std::size_t arrival = as_index(own.arrival(record));
      for (std::int64_t j = plan.record_begins[arrival]; j < plan.record_begins[arrival + 1]; ++j) {
        terms.push_back(own_rows[as_index(plan.entry_rows[as_index(j)])]);
      }
    }
    begins.push_back(static_cast<std::int64_t>(terms.size()));
  }
  sum_rows(context, values.dtype(), values.cols(), begins, terms, rails);

  std::vector<float> scalars;
  if (step.rows.scalars.defined()) {
    scalars.resize(plan.rail_choices.size());
    std::size_t at = 0;
    for (int rank = 0; rank < transport_.size(); ++rank) {
      Reader reader(step.hop.extra_from(rank));
      for (std::int64_t i = 0; i < plan.to_experts.sent[as_index(rank)]; ++i) {
        const Record& record = plan.records[at++];
        for (std::int64_t j = 0; j < record.count; ++j) {
          scalars[as_index(record.first + j)] = reader.take<float>();
        }
      }
    }
  }
  return scalars;
}

}  // namespace cartesian
