#include "comm/begun_sum.h"

#include <algorithm>

#include "base/check.h"
#include "comm/reduce_rounds.h"

namespace cartesian {

BegunSum::BegunSum(Transport& transport, const Topology& topology, BufferPool& buffers,
                   Shares shares, std::span<float> data, CommPhase phase)
    : transport_(transport),
      shares_(std::move(shares)),
      data_(data),
      phase_(phase),
      cells_(shares_.team, topology, data.size()),
      me_(static_cast<std::size_t>(shares_.team.index_of(transport.rank()))),
      node_(cells_.node_of(me_)),
      held_(cells_.pieces_held_by(me_)) {
  check(shares_.bounds.empty() ||
            (shares_.bounds.size() == cells_.members() + 1 && shares_.bounds.back() == data.size()),
        "shares make up the array");
  if (cells_.members() == 1 || data.empty()) {
    return;
  }
  received_ = buffers.take(buffer_elements() * sizeof(float));
  stage_ = Stage::pieces;
  post_next();
}

std::size_t BegunSum::buffer_elements() const {
  std::size_t pieces = 0;
  std::size_t cells = 0;
  for (const std::size_t piece : held_) {
    pieces += cells_.piece(piece).size() * (cells_.members_of(node_).size() - 1);
    cells += cells_.cell(piece, node_).size() * (cells_.nodes() - 1);
  }
  return std::max(pieces, cells);
}

bool BegunSum::needs(Stage stage) const {
  const bool shared = !shares_.bounds.empty();
  switch (stage) {
    case Stage::pieces:
      return cells_.pieces() > 1;
    case Stage::cells:
      return cells_.nodes() > 1;
    case Stage::cells_back:
      return cells_.nodes() > 1 || shared;
    case Stage::pieces_back:
      return cells_.pieces() > 1 && !shared;
    default:
      return true;
  }
}

void BegunSum::post_next() {
  while (!needs(stage_)) {
    stage_ = static_cast<Stage>(static_cast<int>(stage_) + 1);
  }
  switch (stage_) {
    case Stage::pieces:
      post(pieces_to_holders());
      break;
    case Stage::cells:
      post(cells_to_holders());
      break;
    case Stage::cells_back:
      post(shares_.bounds.empty() ? cells_to_all() : cells_to_owners());
      break;
    case Stage::pieces_back:
      post(pieces_to_members());
      break;
    default:
      request_.reset();
      received_ = {};
  }
}

void BegunSum::post(MessageGroup group) {
  static constexpr std::byte kHere{1};
  presence_.resize(cells_.members());
  for (std::size_t member = 0; member < cells_.members(); ++member) {
    if (member != me_) {
      const int rank = shares_.team.ranks[member];
      group.sends.push_back({rank, {&kHere, 1}});
      group.recvs.push_back({rank, std::span(presence_).subspan(member, 1)});
    }
  }
  request_ = transport_.post(std::move(group));
}

void BegunSum::advance(const Context& context) {
  if (done()) {
    return;
  }
  request_->wait();
  if (stage_ == Stage::pieces) {
    sum_pieces(context);
  } else if (stage_ == Stage::cells) {
    sum_cells(context);
  }
  stage_ = static_cast<Stage>(static_cast<int>(stage_) + 1);
  post_next();
}

void BegunSum::send(MessageGroup& group, std::size_t member, std::span<float> values) const {
  group.sends.push_back({shares_.team.ranks[member], bytes_of(values)});
}

void BegunSum::receive(MessageGroup& group, std::size_t member, std::span<float> values) const {
  group.recvs.push_back({shares_.team.ranks[member], bytes_of(values)});
}

MessageGroup BegunSum::pieces_to_holders() {
  MessageGroup group{phase_, {}, {}};
  float* at = buffer();
  for (std::size_t piece = 0; piece < cells_.pieces(); ++piece) {
    const std::size_t holder = cells_.holder(node_, piece);
    const std::span<float> mine = elements(cells_.piece(piece));
    if (holder != me_) {
      send(group, holder, mine);
      continue;
    }
    for (const std::size_t member : cells_.members_of(node_)) {
      if (member != me_) {
        receive(group, member, {at, mine.size()});
        at += mine.size();
      }
    }
  }
  return group;
}

void BegunSum::sum_pieces(const Context& context) const {
  const float* at = buffer();
  for (const std::size_t piece : held_) {
    const std::span<float> mine = elements(cells_.piece(piece));
    std::vector<const float*> versions;
    for (const std::size_t member : cells_.members_of(node_)) {
      versions.push_back(member == me_ ? mine.data() : at);
      at += member == me_ ? 0 : mine.size();
    }
    sum_in_order<float>(context, versions, mine);
  }
}

MessageGroup BegunSum::cells_to_holders() {
  MessageGroup group{phase_, {}, {}};
  float* at = buffer();
  for (const std::size_t piece : held_) {
    const std::size_t mine = cells_.cell(piece, node_).size();
    for (std::size_t node = 0; node < cells_.nodes(); ++node) {
      if (node != node_) {
        send(group, cells_.holder(node, piece), elements(cells_.cell(piece, node)));
        receive(group, cells_.holder(node, piece), {at, mine});
        at += mine;
      }
    }
  }
  return group;
}

void BegunSum::sum_cells(const Context& context) const {
  const float* at = buffer();
  for (const std::size_t piece : held_) {
    const std::span<float> mine = elements(cells_.cell(piece, node_));
    std::vector<const float*> versions;
    for (std::size_t node = 0; node < cells_.nodes(); ++node) {
      versions.push_back(node == node_ ? mine.data() : at);
      at += node == node_ ? 0 : mine.size();
    }
    sum_in_order<float>(context, versions, mine);
  }
}

MessageGroup BegunSum::cells_to_all() const {
  MessageGroup group{phase_, {}, {}};
  for (const std::size_t piece : held_) {
    for (std::size_t node = 0; node < cells_.nodes(); ++node) {
      if (node != node_) {
        send(group, cells_.holder(node, piece), elements(cells_.cell(piece, node_)));
        receive(group, cells_.holder(node, piece), elements(cells_.cell(piece, node)));
      }
    }
  }
  return group;
}

MessageGroup BegunSum::cells_to_owners() const {
  const auto owned = [&](SumCells::Range cell, std::size_t member) {
    const std::size_t begin = std::max(cell.begin, shares_.bounds[member]);
    const std::size_t end = std::min(cell.end, shares_.bounds[member + 1]);
    return elements({begin, std::max(begin, end)});
  };
  MessageGroup group{phase_, {}, {}};
  for (std::size_t piece = 0; piece < cells_.pieces(); ++piece) {
    for (std::size_t node = 0; node < cells_.nodes(); ++node) {
      const std::size_t holder = cells_.holder(node, piece);
      const SumCells::Range cell = cells_.cell(piece, node);
      if (holder != me_) {
        receive(group, holder, owned(cell, me_));
        continue;
      }
      for (std::size_t member = 0; member < cells_.members(); ++member) {
        if (member != me_) {
          send(group, member, owned(cell, member));
        }
      }
    }
  }
  return group;
}

MessageGroup BegunSum::pieces_to_members() const {
  MessageGroup group{phase_, {}, {}};
  for (std::size_t piece = 0; piece < cells_.pieces(); ++piece) {
    const std::size_t holder = cells_.holder(node_, piece);
    const std::span<float> values = elements(cells_.piece(piece));
    if (holder != me_) {
      receive(group, holder, values);
      continue;
    }
    for (const std::size_t member : cells_.members_of(node_)) {
      if (member != me_) {
        send(group, member, values);
      }
    }
  }
  return group;
}

}  // namespace cartesian
