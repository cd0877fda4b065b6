#include "runtime/cli/plan_table.h"

#include <fmt/format.h>

namespace cartesian {

namespace {

constexpr double kKiB = 1024.0;
constexpr double kMiB = 1024.0 * 1024.0;
constexpr double kMilli = 1e3;

void print_copies(const std::vector<PlanRow>& rows) {
  fmt::print("copies between nodes per token, all layers, forward, and what a token sends\n");
  fmt::print("  {:<10} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>10} {:>10}\n", "", "flat", "home",
             "pivot", "table", "gate", "oracle", "inter KiB", "intra KiB");
  for (const auto& [name, costs] : rows) {
    const std::string speculative =
        costs.speculative ? fmt::format("{:8.3f}", *costs.speculative) : fmt::format("{:>8}", "-");
    fmt::print("  {:<10} {:8.3f} {:8.3f} {} {:8.3f} {:8.3f} {:8.3f} {:10.1f} {:10.1f}\n", name,
               costs.flat, costs.home, speculative, costs.table, costs.gate, costs.oracle,
               costs.inter_bytes / kKiB, costs.intra_bytes / kKiB);
  }
}

void print_loads(const std::vector<PlanRow>& rows) {
  fmt::print(
      "the most loaded network card by phase, and rank, over their means; the fullest rank's "
      "experts\nand the sums of replicas' gradients; a step's MoE layers, nothing overlapping\n");
  fmt::print(
      "  {:<10} {:>6} {:>6} {:>6} {:>6} {:>6} {:>11} {:>11} {:>9} = {:>6} + {:>6} + {:>7} + {}\n",
      "", "A out", "A back", "B out", "B back", "rank", "experts MiB", "grad. MiB", "ms", "inter",
      "intra", "compute", "gradients");
  for (const auto& [name, costs] : rows) {
    const auto& cards = costs.card_imbalance;
    fmt::print(
        "  {:<10} {:6.2f} {:6.2f} {:6.2f} {:6.2f} {:6.2f} {:11.1f} {:11.1f} {:9.3f} = {:6.3f} + "
        "{:6.3f} + {:7.3f} + {:.3f}\n",
        name, cards[0], cards[1], cards[2], cards[3], costs.rank_imbalance,
        costs.expert_bytes / kMiB, costs.gradient_bytes / kMiB, costs.time.total() * kMilli,
        costs.time.inter_s * kMilli, costs.time.intra_s * kMilli, costs.time.compute_s * kMilli,
        costs.time.gradients_s * kMilli);
  }
}

}  // namespace

void print_plan_table(const std::vector<PlanRow>& rows) {
  print_copies(rows);
  print_loads(rows);
}

}  // namespace cartesian
