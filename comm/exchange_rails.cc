// Between sources and rails: rows out, gradients back.

#include <algorithm>
#include <numeric>

#include "comm/exchange_step.h"

namespace cartesian {

namespace {

constexpr std::string_view kSpread = "spread";
constexpr std::string_view kReturnGradients = "return gradients";

/// A RailChoice in a message: rails and their experts' ranks share a node.
struct PackedChoice {
  std::int16_t expert = 0;
  std::int16_t local = 0;  ///< the rank's index in its node
  float gate = 0;
};

/// What goes with the rows to or from each rank: something for each token, then for each choice.
std::vector<std::size_t> bytes_with_rows(const std::vector<std::int64_t>& tokens,
                                         std::size_t of_token,
                                         const std::vector<std::int64_t>& choices,
                                         std::size_t of_choice) {
  std::vector<std::size_t> bytes;
  for (std::size_t rank = 0; rank < tokens.size(); ++rank) {
    bytes.push_back(as_index(tokens[rank]) * of_token + as_index(choices[rank]) * of_choice);
  }
  return bytes;
}

/// Rails' rows by record: each to one rank of the node (flat: any).
void list_records(bool flat, int ranks, ExchangePlan& plan) {
  const auto begins = [&](std::size_t rail) { return plan.rail_choice_begins[rail]; };
  const auto for_each_record = [&](std::size_t rail, const auto& visit) {
    for (std::int64_t i = begins(rail); i < begins(rail + 1);) {
      const std::int32_t rank = plan.rail_choices[as_index(i)].rank;
      std::int64_t end = i + 1;
      while (!flat && end < begins(rail + 1) && plan.rail_choices[as_index(end)].rank == rank) {
        ++end;
      }
      visit(rank, Record{i, end - i});
      i = end;
    }
  };
  plan.to_experts.sent.assign(as_index(ranks), 0);
  plan.entries_to.assign(as_index(ranks), 0);
  for (std::size_t rail = 0; rail < plan.rails.size(); ++rail) {
    for_each_record(rail, [&](std::int32_t rank, const Record& record) {
      ++plan.to_experts.sent[as_index(rank)];
      plan.entries_to[as_index(rank)] += record.count;
    });
  }
  std::vector<std::int64_t> next = begins_of(plan.to_experts.sent);
  plan.to_experts.from.resize(as_index(next.back()));
  plan.records.resize(as_index(next.back()));
  plan.rail_record_begins.assign(1, 0);
  for (std::size_t rail = 0; rail < plan.rails.size(); ++rail) {
    for_each_record(rail, [&](std::int32_t rank, const Record& record) {
      const std::int64_t at = next[as_index(rank)]++;
      plan.to_experts.from[as_index(at)] = static_cast<std::int32_t>(rail);
      plan.records[as_index(at)] = record;
      plan.rail_records.push_back(at);
    });
    plan.rail_record_begins.push_back(static_cast<std::int64_t>(plan.rail_records.size()));
  }
}

/// Which rails have something for which target.
void list_targets(int me, int ranks, ExchangePlan& plan) {
  const auto has_part = [](const RailToken& token) {
    return token.choices > 0 || token.finishes != 0;
  };
  plan.to_targets.sent.assign(as_index(ranks), 0);
  for (const RailToken& token : plan.rails) {
    plan.to_targets.sent[as_index(token.target)] += has_part(token) ? 1 : 0;
  }
  std::vector<std::int64_t> next = begins_of(plan.to_targets.sent);
  plan.to_targets.from.resize(as_index(next.back()));
  for (std::size_t rail = 0; rail < plan.rails.size(); ++rail) {
    const RailToken& token = plan.rails[rail];
    if (has_part(token)) {
      plan.to_targets.from[as_index(next[as_index(token.target)]++)] =
          static_cast<std::int32_t>(rail);
    }
    if (plan.to_pivots && token.target == me) {
      plan.target_rails.push_back(static_cast<std::int32_t>(rail));
    }
  }
  if (plan.to_pivots) {
    plan.targets = static_cast<std::int64_t>(plan.target_rails.size());
  }
}

}  // namespace

TransferPtr Exchange::begin_spread(const Context& context, ExchangePlan& plan, const Tensor& rows) {
  check(rows.rows() == plan.sources, "one row for every source");
  const auto extras = [](const std::vector<std::int64_t>& tokens,
                         const std::vector<std::int64_t>& choices) {
    return bytes_with_rows(tokens, sizeof(RailToken), choices, sizeof(PackedChoice));
  };
  auto step = std::make_unique<HopStep>(
      kSpread,
      new_transfer(context, {.sent = plan.to_rails.sent,
                             .received = plan.to_rails.received,
                             .extra_sent = extras(plan.to_rails.sent, plan.choices_to),
                             .extra_received = extras(plan.to_rails.received, plan.choices_from),
                             .row_bytes = bytes_of_rows(rows.dtype(), rows.cols())}));
  step->dtype = rows.dtype();
  step->hidden = rows.cols();
  const std::vector<const std::byte*> addresses = row_sources(rows);
  std::vector<const std::byte*> sent;
  for (const std::int32_t source : plan.to_rails.from) {
    sent.push_back(addresses[as_index(source)]);
  }
  copy_rows(context, sent, step->hop.outgoing(), bytes_of_rows(rows.dtype(), rows.cols()));
  std::size_t token = 0;
  std::size_t choice = 0;
  for (int rank = 0; rank < transport_.size(); ++rank) {
    Writer writer(step->hop.extra_to(rank));
    for (std::int64_t i = 0; i < plan.to_rails.sent[as_index(rank)]; ++i) {
      writer.put(plan.tokens_sent[token++]);
    }
    for (std::int64_t i = 0; i < plan.choices_to[as_index(rank)]; ++i) {
      const RailChoice& sending = plan.choices_sent[choice++];
      writer.put(PackedChoice{static_cast<std::int16_t>(sending.expert),
                              static_cast<std::int16_t>(topology_.local_index(sending.rank)),
                              sending.gate});
    }
  }
  plan.tokens_sent = {};
  plan.choices_sent = {};
  step->hop.post({"dispatch", plan.block});
  return step;
}

Tensor Exchange::finish_spread(const Context& context, Arena& arena, ExchangePlan& plan,
                               TransferPtr transfer) {
  HopStep& step = step_of(transfer, kSpread);
  const int me = transport_.rank();
  const auto node = topology_.ranks_of_node(topology_.node(me));
  for (int rank = 0; rank < transport_.size(); ++rank) {
    if (rank == me) {
      continue;
    }
    Reader reader(step.hop.extra_from(rank));
    for (std::int64_t i = 0; i < plan.to_rails.received[as_index(rank)]; ++i) {
      plan.rails.push_back(reader.take<RailToken>());
    }
    for (std::int64_t i = 0; i < plan.choices_from[as_index(rank)]; ++i) {
      const auto choice = reader.take<PackedChoice>();
      check(as_index(choice.local) < node.size(), "a choice is of a rank of its rail's node");
      plan.rail_choices.push_back({choice.expert, node[as_index(choice.local)], choice.gate});
    }
  }
  plan.rail_choice_begins.assign(1, 0);
  for (const RailToken& token : plan.rails) {
    plan.rail_choice_begins.push_back(plan.rail_choice_begins.back() + token.choices);
  }
  check(plan.rail_choice_begins.back() == static_cast<std::int64_t>(plan.rail_choices.size()),
        "rails have as many choices as they say");
  list_records(flow() == Flow::flat, transport_.size(), plan);
  list_targets(me, transport_.size(), plan);

  const auto arrived = step.hop.arrived();
  const Tensor rows =
      arena.tensor(step.dtype, {static_cast<std::int64_t>(arrived.size()), step.hidden});
  copy_rows(context, arrived, row_targets(rows), bytes_of_rows(step.dtype, step.hidden));
  return rows;
}

TransferPtr Exchange::begin_return_gradients(const Context& context, const ExchangePlan& plan,
                                             const RailGradients& gradients) {
  const auto own = as_index(plan.rail_choice_begins[as_index(plan.sources)]);
  const auto sources = as_index(plan.sources);
  check(gradients.rows.rows() + plan.sources == static_cast<std::int64_t>(plan.rails.size()) &&
            gradients.choices.size() == plan.rail_choices.size() &&
            gradients.shared_weights.size() == plan.rails.size(),
        "every rail has its gradients");
  const auto extras = [](const std::vector<std::int64_t>& tokens,
                         const std::vector<std::int64_t>& choices) {
    return bytes_with_rows(tokens, sizeof(float), choices, sizeof(float));
  };
  const std::size_t row_bytes = bytes_of_rows(gradients.rows.dtype(), gradients.rows.cols());
  auto step = std::make_unique<HopStep>(
      kReturnGradients,
      new_transfer(context, {.sent = plan.to_rails.received,
                             .received = plan.to_rails.sent,
                             .extra_sent = extras(plan.to_rails.received, plan.choices_from),
                             .extra_received = extras(plan.to_rails.sent, plan.choices_to),
                             .row_bytes = row_bytes}));
  copy_rows(context, row_sources(gradients.rows), step->hop.outgoing(), row_bytes);
  std::size_t token = sources;
  std::size_t choice = own;
  for (int rank = 0; rank < transport_.size(); ++rank) {
    Writer writer(step->hop.extra_to(rank));
    for (std::int64_t i = 0; i < plan.to_rails.received[as_index(rank)]; ++i) {
      writer.put(gradients.shared_weights[token++]);
    }
    for (std::int64_t i = 0; i < plan.choices_from[as_index(rank)]; ++i) {
      writer.put(gradients.choices[choice++]);
    }
  }
  step->own_choices.assign(gradients.choices.begin(),
                           gradients.choices.begin() + static_cast<std::ptrdiff_t>(own));
  step->own_shared_weights.assign(
      gradients.shared_weights.begin(),
      gradients.shared_weights.begin() + static_cast<std::ptrdiff_t>(sources));
  step->hop.post({"combine", plan.block});
  return step;
}

void Exchange::finish_return_gradients(const Context& context, const ExchangePlan& plan,
                                       TransferPtr transfer, const SourceGradients& gradients) {
  HopStep& step = step_of(transfer, kReturnGradients);
  const auto gates = gradients.gates.span<float>();
  const auto weights = gradients.shared_weights.span<float>();
  std::ranges::fill(gates, 0.0F);
  std::ranges::copy(step.own_shared_weights, weights.begin());
  const auto gate_of = [&](std::int64_t source, std::int32_t column) -> float& {
    return gates[as_index(source * plan.choices + column)];
  };
  std::size_t choice = 0;
  for (std::int64_t source = 0; source < plan.sources; ++source) {
    for (int i = 0; i < plan.rails[as_index(source)].choices; ++i, ++choice) {
      gate_of(source, plan.columns[choice]) = step.own_choices[choice];
    }
  }
  std::size_t row = 0;
  std::size_t sent_choice = 0;
  for (int rank = 0; rank < transport_.size(); ++rank) {
    Reader reader(step.hop.extra_from(rank));
    const std::int64_t rows = plan.to_rails.sent[as_index(rank)];
    for (std::int64_t i = 0; i < rows; ++i) {
      weights[as_index(plan.to_rails.from[row + as_index(i)])] += reader.take<float>();
    }
    for (std::int64_t i = 0; i < rows; ++i, ++row) {
      for (int j = 0; j < plan.choices_of_sent[row]; ++j, ++sent_choice) {
        gate_of(plan.to_rails.from[row], plan.columns[choice + sent_choice]) = reader.take<float>();
      }
    }
  }

  // Sums of what arrives, rank by rank in order of nodes, onto the sources' own.
  const std::vector<std::int64_t> begins = begins_of(plan.to_rails.sent);
  std::vector<std::vector<const std::byte*>> terms(as_index(plan.sources));
  std::vector<std::byte*> rows = row_targets(gradients.rows);
  for (const int rank : ranks_by_node_) {
    for (std::int64_t i = begins[as_index(rank)]; i < begins[as_index(rank) + 1]; ++i) {
      terms[as_index(plan.to_rails.from[as_index(i)])].push_back(step.hop.arrived()[as_index(i)]);
    }
  }
  std::vector<std::int64_t> term_begins(1, 0);
  std::vector<const std::byte*> all;
  for (std::size_t source = 0; source < terms.size(); ++source) {
    all.push_back(rows[source]);
    all.insert(all.end(), terms[source].begin(), terms[source].end());
    term_begins.push_back(static_cast<std::int64_t>(all.size()));
  }
  sum_rows(context, gradients.rows.dtype(), gradients.rows.cols(), term_begins, all, rows);
}

}  // namespace cartesian
