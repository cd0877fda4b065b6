#pragma once
// StepSimulator: the events of one simulated step (planner/simulation.h).

#include <array>
#include <cstdint>
#include <vector>

#include "base/index.h"
#include "planner/cluster.h"
#include "planner/event_queue.h"
#include "planner/gradient_rings.h"
#include "planner/layer_schedule.h"
#include "planner/resources.h"
#include "planner/timeline.h"

namespace cartesian {

/// What a step consists of.
struct StepWork {
  std::vector<LayerSchedule> layers;
  std::vector<GradientRing> rings;
  std::vector<double> attention_s;  ///< [ranks] of a layer, forward
  double row_bytes = 0;
  double expert_s = 0;  ///< of a row, forward
  double shared_s = 0;
  double router_s = 0;
  double gradient_bytes = 0;  ///< of an expert
};

/// Not thread-safe. What it is made of must outlive it.
class StepSimulator {
 public:
  StepSimulator(const StepWork& work, const Cluster& cluster, Timeline& timeline);

  /// To the end; returns when that is. To be called once.
  double run();
  const Resources& resources() const { return resources_; }
  double bytes(StepPhase phase, bool inter) const {
    return bytes_.at(static_cast<std::size_t>(phase))[inter ? 1 : 0];
  }

 private:
  // A pass is a layer's forward, then, last layer first, a layer's backward; the one after them is
  // the gradients' rings. Steps of a pass are stages in the order of its direction.
  struct Event {
    enum class Kind : std::uint8_t { pass_begins, computed, arriving, arrived };
    Kind kind{};
    std::uint16_t pass = 0;
    std::uint16_t chunk = 0;
    std::uint32_t index = 0;  ///< rank, or message
  };
  /// A message as it goes in its pass.
  struct Transfer {
    int from = 0;
    int to = 0;
    bool inter = false;
    double bytes = 0;
    double seconds = 0;  ///< of occupying a link
    double latency_s = 0;
    TimelineSpan label;
  };
  /// How far the ranks are in a pass.
  struct Pass {
    std::vector<std::uint32_t> arrived;  ///< [chunks][steps][ranks] messages
    std::vector<std::uint8_t> step;      ///< [chunks][ranks]
    std::vector<std::uint16_t> chunks;   ///< [ranks] not finished
    int ranks = 0;                       ///< not finished
  };
  struct RingLink {
    int from = 0;
    int to = 0;
    double bytes = 0;
    double parts = 0;
  };

  int passes() const { return static_cast<int>(passes_.size()); }
  bool is_backward(int pass) const { return pass >= passes() / 2; }
  int layer_of(int pass) const { return is_backward(pass) ? passes() - 1 - pass : pass; }
  const LayerSchedule& schedule(int pass) const { return work_.layers[as_index(layer_of(pass))]; }
  Stage stage_of(int pass, int step) const;
  std::uint32_t& arrived(int pass, int chunk, int step, int rank);
  std::uint8_t& step(int pass, int chunk, int rank);
  std::size_t expected(int pass, int chunk, int step, int rank) const;
  double compute_seconds(int pass, int chunk, int step, int rank) const;
  Transfer transfer(int pass, std::uint32_t message) const;
  TimelineSpan label(int pass, int chunk, StepPhase phase) const;

  void handle(const Event& event, double now_s);
  void enter(int pass, int rank, double now_s);
  void begin_pass(int pass, int rank, double now_s);
  void open(int pass);
  void advance(int pass, int chunk, int rank, double now_s);
  void finish_step(int pass, int chunk, int rank, double now_s);
  void finish_chunk(int pass, int rank, double now_s);
  void join_rings(int rank, double now_s);
  void send(int pass, std::uint32_t message, double now_s);
  void begin_to_receive(const Event& event, double now_s);
  void receive(const Event& event, double now_s);
  /// Returns when it begins.
  double occupy(ResourceKind kind, int unit, TimelineSpan label, double now_s, double seconds);

  const StepWork& work_;
  const Cluster& cluster_;
  Timeline& timeline_;
  Resources resources_;
  EventQueue<Event> events_;
  std::vector<Pass> passes_;
  std::vector<RingLink> ring_links_;
  std::vector<std::uint32_t> ring_first_;                   // [rings + 1] into ring_links_
  std::vector<int> ring_waits_;                             // [rings] for so many ranks
  std::vector<std::vector<std::uint32_t>> rings_of_;        // [ranks]
  std::array<std::array<double, 2>, kStepPhases> bytes_{};  // intra, inter
};

}  // namespace cartesian
