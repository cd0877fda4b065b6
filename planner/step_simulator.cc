#include "planner/step_simulator.h"

#include <algorithm>

#include "base/check.h"
#include "base/index.h"
#include "planner/step_time.h"

namespace cartesian {

namespace {

StepPhase phase_of(const LayerSchedule::Message& message) {
  switch (message.received) {
    case Stage::a_relay:
    case Stage::a_experts:
      return StepPhase::a_dispatch;
    case Stage::a_gather:
    case Stage::pivot:
      return StepPhase::a_combine;
    case Stage::b_relay:
    case Stage::b_experts:
      return StepPhase::b_dispatch;
    default:
      return StepPhase::b_combine;
  }
}

StepPhase phase_of(Stage stage) {
  return stage == Stage::a_experts   ? StepPhase::a_experts
         : stage == Stage::b_experts ? StepPhase::b_experts
                                     : StepPhase::b_router;
}

}  // namespace

StepSimulator::StepSimulator(const StepWork& work, const Cluster& cluster, Timeline& timeline)
    : work_(work),
      cluster_(cluster),
      timeline_(timeline),
      resources_(cluster.topology),
      passes_(2 * work.layers.size()),
      ring_first_{0},
      rings_of_(as_index(cluster.topology.ranks())) {
  for (const GradientRing& ring : work.rings) {
    const std::size_t size = ring.ranks.size();
    const double parts = 2.0 * static_cast<double>(size - 1);
    const double bytes = ring.experts * work.gradient_bytes * parts / static_cast<double>(size);
    for (std::size_t i = 0; i < size; ++i) {
      rings_of_[as_index(ring.ranks[i])].push_back(static_cast<std::uint32_t>(ring_waits_.size()));
      ring_links_.push_back({ring.ranks[i], ring.ranks[(i + 1) % size], bytes, parts});
    }
    ring_first_.push_back(static_cast<std::uint32_t>(ring_links_.size()));
    ring_waits_.push_back(static_cast<int>(size));
  }
}

double StepSimulator::run() {
  for (int rank = 0; rank < cluster_.topology.ranks(); ++rank) {
    enter(0, rank, 0);
  }
  double end_s = 0;
  while (!events_.empty()) {
    const auto entry = events_.pop();
    end_s = entry.time_s;
    handle(entry.event, entry.time_s);
  }
  for (const Pass& pass : passes_) {
    check(pass.ranks == 0, "every rank comes to the end of every layer");
  }
  return end_s;
}

Stage StepSimulator::stage_of(int pass, int step) const {
  return static_cast<Stage>(is_backward(pass) ? schedule(pass).stages() - 1 - step : step);
}

std::uint32_t& StepSimulator::arrived(int pass, int chunk, int step, int rank) {
  const auto ranks = as_index(cluster_.topology.ranks());
  const std::size_t row = as_index(chunk) * as_index(schedule(pass).stages()) + as_index(step);
  return passes_[as_index(pass)].arrived[row * ranks + as_index(rank)];
}

std::uint8_t& StepSimulator::step(int pass, int chunk, int rank) {
  const auto ranks = as_index(cluster_.topology.ranks());
  return passes_[as_index(pass)].step[as_index(chunk) * ranks + as_index(rank)];
}

std::size_t StepSimulator::expected(int pass, int chunk, int step, int rank) const {
  const Stage stage = stage_of(pass, step);
  return is_backward(pass) ? schedule(pass).sent(chunk, stage, rank).size()
                           : schedule(pass).received(chunk, stage, rank).size();
}

double StepSimulator::compute_seconds(int pass, int chunk, int step, int rank) const {
  const LayerSchedule::Work& work = schedule(pass).work(chunk, rank);
  const double products =
      (is_backward(pass) ? kBackwardProducts : 1) * cluster_.flops / cluster_.rank_flops(rank);
  switch (stage_of(pass, step)) {
    case Stage::a_experts:
      return products * (work.experts[0] * work_.expert_s + work.shared[0] * work_.shared_s);
    case Stage::pivot:
      return products * work.pivots * work_.router_s;
    case Stage::b_experts:
      return products * (work.experts[1] * work_.expert_s + work.shared[1] * work_.shared_s);
    default:
      return 0;
  }
}

StepSimulator::Transfer StepSimulator::transfer(int pass, std::uint32_t message) const {
  Transfer transfer;
  double latencies = 1;
  if (pass == passes()) {
    const RingLink& link = ring_links_[message];
    transfer.from = link.from;
    transfer.to = link.to;
    transfer.bytes = link.bytes;
    transfer.label.phase = StepPhase::gradients;
    transfer.label.backward = true;
    latencies = link.parts;
  } else {
    const LayerSchedule::Message& sent = schedule(pass).messages()[message];
    transfer.from = is_backward(pass) ? sent.to : sent.from;
    transfer.to = is_backward(pass) ? sent.from : sent.to;
    transfer.bytes = sent.rows * work_.row_bytes;
    transfer.label = label(pass, sent.chunk, phase_of(sent));
  }
  transfer.inter = cluster_.topology.node(transfer.from) != cluster_.topology.node(transfer.to);
  const LinkClass& link = transfer.inter ? cluster_.inter : cluster_.intra;
  transfer.seconds = transfer.bytes / link.bytes_per_s;
  if (transfer.inter) {  // as fast as the slower of both cards
    transfer.seconds =
        transfer.bytes / std::min(cluster_.card_bytes_per_s(cluster_.topology.node(transfer.from)),
                                  cluster_.card_bytes_per_s(cluster_.topology.node(transfer.to)));
  }
  transfer.latency_s = latencies * link.latency_s;
  transfer.label.bytes = transfer.bytes;
  transfer.label.messages = 1;
  return transfer;
}

TimelineSpan StepSimulator::label(int pass, int chunk, StepPhase phase) const {
  TimelineSpan span;
  span.phase = phase;
  span.backward = is_backward(pass);
  span.layer = layer_of(pass);
  span.chunk = chunk;
  return span;
}

void StepSimulator::handle(const Event& event, double now_s) {
  const auto rank = static_cast<int>(event.index);
  switch (event.kind) {
    case Event::Kind::pass_begins:
      return begin_pass(event.pass, rank, now_s);
    case Event::Kind::computed:
      finish_step(event.pass, event.chunk, rank, now_s);
      return advance(event.pass, event.chunk, rank, now_s);
    case Event::Kind::arriving:
      return begin_to_receive(event, now_s);
    case Event::Kind::arrived:
      return receive(event, now_s);
  }
}

/// First, attention: of the layer that follows in forward, of the one that is done in backward.
void StepSimulator::enter(int pass, int rank, double now_s) {
  const int middle = passes() / 2;
  const double products = pass < middle ? 1 : pass > middle ? kBackwardProducts : 0;
  const double seconds = products * work_.attention_s[as_index(rank)];
  double end_s = now_s;
  if (seconds > 0) {
    const int of = pass < middle ? pass : pass - 1;
    end_s = seconds + occupy(ResourceKind::compute, rank, label(of, -1, StepPhase::attention),
                             now_s, seconds);
  }
  events_.push(end_s, {.kind = Event::Kind::pass_begins,
                       .pass = static_cast<std::uint16_t>(pass),
                       .index = static_cast<std::uint32_t>(rank)});
}

void StepSimulator::begin_pass(int pass, int rank, double now_s) {
  if (pass == passes()) {
    join_rings(rank, now_s);
    return;
  }
  open(pass);
  const int chunks = schedule(pass).chunks();
  for (int chunk = 0; chunk < chunks; ++chunk) {
    advance(pass, chunk, rank, now_s);
  }
}

/// Made when first needed, and given up at its end: few passes are under way at a time.
void StepSimulator::open(int pass) {
  Pass& state = passes_[as_index(pass)];
  if (!state.step.empty()) {
    return;
  }
  const auto ranks = as_index(cluster_.topology.ranks());
  const auto chunks = as_index(schedule(pass).chunks());
  state.arrived.resize(chunks * as_index(schedule(pass).stages()) * ranks);
  state.step.resize(chunks * ranks);
  state.chunks.assign(ranks, static_cast<std::uint16_t>(chunks));
  state.ranks = cluster_.topology.ranks();
}

/// Through the steps of a chunk up to one that must wait or compute.
void StepSimulator::advance(int pass, int chunk, int rank, double now_s) {
  for (;;) {
    const int step = this->step(pass, chunk, rank);
    if (step == schedule(pass).stages()) {
      finish_chunk(pass, rank, now_s);
      return;
    }
    if (arrived(pass, chunk, step, rank) < expected(pass, chunk, step, rank)) {
      return;
    }
    const double seconds = compute_seconds(pass, chunk, step, rank);
    if (seconds > 0) {
      const TimelineSpan span = label(pass, chunk, phase_of(stage_of(pass, step)));
      const double start_s = occupy(ResourceKind::compute, rank, span, now_s, seconds);
      events_.push(start_s + seconds, {.kind = Event::Kind::computed,
                                       .pass = static_cast<std::uint16_t>(pass),
                                       .chunk = static_cast<std::uint16_t>(chunk),
                                       .index = static_cast<std::uint32_t>(rank)});
      return;
    }
    finish_step(pass, chunk, rank, now_s);
  }
}

void StepSimulator::finish_step(int pass, int chunk, int rank, double now_s) {
  const Stage stage = stage_of(pass, step(pass, chunk, rank));
  for (const std::uint32_t message : is_backward(pass) ? schedule(pass).received(chunk, stage, rank)
                                                       : schedule(pass).sent(chunk, stage, rank)) {
    send(pass, message, now_s);
  }
  ++step(pass, chunk, rank);
}

void StepSimulator::finish_chunk(int pass, int rank, double now_s) {
  Pass& state = passes_[as_index(pass)];
  if (--state.chunks[as_index(rank)] > 0) {
    return;
  }
  if (--state.ranks == 0) {
    state = {};
  }
  enter(pass + 1, rank, now_s);
}

void StepSimulator::join_rings(int rank, double now_s) {
  for (const std::uint32_t ring : rings_of_[as_index(rank)]) {
    if (--ring_waits_[ring] == 0) {
      for (std::uint32_t link = ring_first_[ring]; link < ring_first_[ring + 1]; ++link) {
        send(passes(), link, now_s);
      }
    }
  }
}

void StepSimulator::send(int pass, std::uint32_t message, double now_s) {
  const Transfer sent = transfer(pass, message);
  bytes_.at(static_cast<std::size_t>(sent.label.phase))[sent.inter ? 1 : 0] += sent.bytes;
  const double start_s = occupy(sent.inter ? ResourceKind::card_out : ResourceKind::link_out,
                                sent.inter ? cluster_.topology.node(sent.from) : sent.from,
                                sent.label, now_s, sent.seconds);
  events_.push(
      start_s + sent.latency_s,
      {.kind = Event::Kind::arriving, .pass = static_cast<std::uint16_t>(pass), .index = message});
}

void StepSimulator::begin_to_receive(const Event& event, double now_s) {
  const Transfer sent = transfer(event.pass, event.index);
  const double start_s = occupy(sent.inter ? ResourceKind::card_in : ResourceKind::link_in,
                                sent.inter ? cluster_.topology.node(sent.to) : sent.to, sent.label,
                                now_s, sent.seconds);
  Event arrived = event;
  arrived.kind = Event::Kind::arrived;
  events_.push(start_s + sent.seconds, arrived);
}

void StepSimulator::receive(const Event& event, double now_s) {
  const int pass = event.pass;
  if (pass == passes()) {
    return;
  }
  const LayerSchedule::Message& message = schedule(pass).messages()[event.index];
  const int rank = is_backward(pass) ? message.from : message.to;
  const int step = is_backward(pass) ? schedule(pass).stages() - 1 - static_cast<int>(message.sent)
                                     : static_cast<int>(message.received);
  // Of a rank that has not begun the pass, step 0 is to come, in which nothing arrives.
  open(pass);
  if (++arrived(pass, message.chunk, step, rank) == expected(pass, message.chunk, step, rank) &&
      this->step(pass, message.chunk, rank) == step) {
    advance(pass, message.chunk, rank, now_s);
  }
}

double StepSimulator::occupy(ResourceKind kind, int unit, TimelineSpan label, double now_s,
                             double seconds) {
  const double start_s = resources_.occupy(kind, unit, label.phase, now_s, seconds);
  label.kind = kind;
  label.unit = unit;
  label.start_s = start_s;
  label.end_s = start_s + seconds;
  timeline_.add(label);
  return start_s;
}

}  // namespace cartesian
