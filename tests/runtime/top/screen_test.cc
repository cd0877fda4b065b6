#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "runtime/top/top_screen.h"
#include "tests/runtime/top/job_readings.h"

namespace cartesian {
namespace {

using Lines = std::vector<std::string>;

JobView small_view() {
  JobHistory history;
  JobSnapshot first = job_reading(40, 100);
  history.add(first);
  JobSnapshot next = job_reading(50, 104);
  next.placement = {.layers = 1, .groups = 2, .experts = 4, .replicas = 9, .plan_version = 3};
  history.add(next);
  return make_job_view(history);
}

/// Of `layers` layers with `experts` experts each, and `ranks` ranks.
JobView large_view(int layers, int experts, int ranks) {
  JobView view = small_view();
  view.experts.clear();
  for (int layer = 0; layer < layers; ++layer) {
    ExpertsView row;
    row.layer = layer;
    row.group = "A";
    row.imbalance = 1 + 0.01 * layer;
    for (int expert = 0; expert < experts; ++expert) {
      row.loads.push_back(expert + 1);
    }
    view.experts.push_back(row);
  }
  view.ranks.clear();
  for (int rank = 0; rank < ranks; ++rank) {
    RankView row;
    row.rank = rank;
    row.host = "host";
    row.straggler_ratio = 2 - 0.01 * rank;
    view.ranks.push_back(row);
  }
  return view;
}

/// As in the raw strings below.
std::string text(const Lines& lines) { return fmt::format("\n{}\n", fmt::join(lines, "\n")); }

std::size_t columns(const std::string& line) {
  return static_cast<std::size_t>(std::ranges::count_if(
      line, [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; }));
}

void expect_fits(const Lines& lines, const ScreenSize& size) {
  EXPECT_LE(lines.size(), size.height == 0 ? lines.size() : size.height);
  for (const std::string& line : lines) {
    EXPECT_LE(columns(line), size.width) << line;
  }
}

bool has(const Lines& lines, const std::string& part) {
  return std::ranges::any_of(
      lines, [&](const std::string& line) { return line.find(part) != std::string::npos; });
}

TEST(TopScreen, SmallJob) {
  const Lines lines =
      top_screen(small_view(), {.title = "host:9400", .trouble = "", .total_steps = 100},
                 {.width = 100}, /*colour=*/false);
  EXPECT_EQ(text(lines), R"(
cartesian 0.1.0   host:9400
step 50 of 100, 20s left, 0s ago   loss 3.2500   gradient norm 1.500   learning rate 0.0003
2.5k tokens/s   0.500 s a step   2 of 2 ranks alive on 2 nodes   checkpoint of step 10   plan 3

Step by phase, over 4 s                              Traffic            bytes/s   rows/s
  attention     ████▎              25.0%   0.125 s     inside nodes         0 B      250
  experts       ████████▌          50.0%   0.250 s     between nodes     1.5 MB     6.2k
  exchange      ████▎              25.0%   0.125 s     copies a token 2.50   dedup 1.28
  exposed waits ██▏                12.5%   0.062 s     pivot hits 90.0%

                                                     Plan 3
                                                       adopted 3   failed 0   rejected 1
                                                       moved 1.5 MB
                                                       8 experts in 9 replicas

Experts, loads over 4 s, dim: mean/max                 max/mean  dead   ranks  co-loc.
  0 A ████▄▄▄▄▄▄▄▄····                                     2.00     1    1.02    50.0%
  0 B ██████████████████████████████████████▍              1.25     0    1.02    50.0%

Ranks, slowest      ratio   step s  computes   waits  waited for
     1  beta         1.14    0.500    100.0%    0.0%       25.0%
     0  alpha        0.86    0.500     75.0%   25.0%        0.0%
)");
}

TEST(TopScreen, Narrow) {
  const Lines lines =
      top_screen(small_view(), {.title = "host:9400", .trouble = "", .total_steps = {}},
                 {.width = 44}, /*colour=*/false);
  EXPECT_EQ(text(lines), R"(
cartesian 0.1.0   host:9400
step 50, 0s ago   loss 3.2500
gradient norm 1.500   learning rate 0.0003
2.5k tokens/s   0.500 s a step
2 of 2 ranks alive on 2 nodes
checkpoint of step 10   plan 3

Step by phase, over 4 s
  attention     ██▊          25.0%   0.125 s
  experts       █████▌       50.0%   0.250 s
  exchange      ██▊          25.0%   0.125 s
  exposed waits █▍           12.5%   0.062 s

Traffic            bytes/s   rows/s
  inside nodes         0 B      250
  between nodes     1.5 MB     6.2k
  copies a token 2.50   dedup 1.28
  pivot hits 90.0%

Plan 3
  adopted 3   failed 0   rejected 1
  moved 1.5 MB
  8 experts in 9 replicas

Experts      max/mean  dead   ranks  co-loc.
  0 A █▄▄·       2.00     1    1.02    50.0%
  0 B ████▊      1.25     0    1.02    50.0%

Ranks, slowest      ratio   step s  computes
     1  beta         1.14    0.500    100.0%
     0  alpha        0.86    0.500     75.0%
)");
}

TEST(TopScreen, FitsEverySize) {
  for (const JobView& view : {small_view(), large_view(40, 64, 300), JobView()}) {
    for (std::size_t width = 1; width <= 200; width += 13) {
      for (std::size_t height = 0; height <= 60; height += 7) {
        const ScreenSize size{width, height};
        expect_fits(
            top_screen(view, {.title = "host:9400", .trouble = "no answer", .total_steps = {}},
                       size, false),
            size);
      }
    }
  }
}

TEST(TopScreen, SaysWhatIsLeftOut) {
  const ScreenSize size{.width = 100, .height = 40};
  const Lines lines = top_screen(large_view(40, 16, 300), {}, size, false);
  EXPECT_EQ(lines.size(), size.height);
  const auto rows = [&](const std::string& part) {
    return std::ranges::count_if(
        lines, [&](const std::string& line) { return line.find(part) != std::string::npos; });
  };
  const auto experts = rows(" A ");
  const auto ranks = rows(" host ");
  EXPECT_TRUE(has(lines, "  … " + std::to_string(40 - experts) +
                             " more rows; the least even, 39 A, has max/mean 1.39"));
  EXPECT_TRUE(has(lines, "  … " + std::to_string(300 - ranks) + " more ranks"));
}

TEST(TopScreen, SmallScreenSaysWhatIsLeftOut) {
  const Lines lines = top_screen(small_view(), {}, {.width = 100, .height = 6}, false);
  ASSERT_EQ(lines.size(), 6);
  EXPECT_TRUE(lines.back().starts_with("… "));
  EXPECT_TRUE(lines.back().ends_with(" more lines"));
}

TEST(TopScreen, MoreExpertsThanColumnsShareCells) {
  const Lines lines = top_screen(large_view(1, 256, 1), {}, {.width = 80}, false);
  EXPECT_TRUE(has(lines, "7 a cell"));  // 42 columns
}

TEST(TopScreen, WithoutLoadsBarsAreOfBalancedness) {
  JobView view = small_view();
  view.experts.erase(view.experts.begin());  // of B no loads are told
  view.experts[0].imbalance = 2;
  const Lines lines = top_screen(view, {}, {.width = 80}, false);
  EXPECT_TRUE(has(lines, "Experts, mean/max"));
  EXPECT_TRUE(has(lines, "  0 B █████████████████████                          2.00"));
}

TEST(TopScreen, NoTerminalCommandsFromTheNetwork) {
  JobView view = small_view();
  view.now.version = "\x1b]0;title\x07";
  view.ranks[0].host =
      "\x1b[2J\xc2\x9b"
      "31mred\r\n\xe2\x80\xae";
  view.experts[0].group = "\x1b[5m";
  view.phases[0].name = "a\tb\x7f";
  view.traffic[0].scope =
      "\x9b"
      "0m";
  view.now.plans["\x1b[1m"] = 1;
  const ScreenContext context{.title = "h\x1b[7m", .trouble = "t\nt", .total_steps = {}};
  for (const std::string& line : top_screen(view, context, {.width = 120}, false)) {
    for (const char c : line) {
      EXPECT_TRUE(c < 0 || (c >= ' ' && c <= '~')) << line;
    }
    EXPECT_EQ(line.find("\xc2\x9b"), std::string::npos);
    EXPECT_EQ(line.find("\xe2\x80\xae"), std::string::npos);
  }
  const Lines lines = top_screen(view, context, {.width = 120}, false);
  EXPECT_TRUE(has(lines, "?[2J?31mred???"));
}

TEST(TopScreen, Trouble) {
  const Lines lines = top_screen(
      small_view(),
      {.title = "host:9400", .trouble = "nothing new for 6s: no answer", .total_steps = {}},
      {.width = 80}, false);
  EXPECT_EQ(lines[1], "nothing new for 6s: no answer");
}

TEST(TopScreen, NamedStragglers) {
  JobView view = small_view();
  view.now.slow_ranks[1] = {"beta", 1.5};
  view.now.slow_links[0] = {"alpha", 2.25};
  Lines lines = top_screen(view, {}, {.width = 100}, false);
  EXPECT_EQ(lines[3], "straggler: rank 1 on beta, 1.50 times as slow as others");
  EXPECT_EQ(lines[4], "straggler: the link of node 0, alpha, 2.25 times as slow as others");
  EXPECT_EQ(lines[5], "");
  view.now.slow_ranks[2] = view.now.slow_ranks[3] = {"beta", 1.5};
  lines = top_screen(view, {}, {.width = 100}, false);
  EXPECT_EQ(lines[5], "… 2 more stragglers");
  EXPECT_EQ(lines[6], "");
}

TEST(TopScreen, ColoursWhatIsWrong) {
  JobView view = small_view();
  view.ranks[0].straggler_ratio = 1.5;
  const Lines lines = top_screen(view, {}, {.width = 100}, /*colour=*/true);
  EXPECT_TRUE(has(lines, "\x1b[0;1;31m   1.50\x1b[0m"));
  for (const std::string& line : lines) {
    const std::size_t last = line.rfind("\x1b[");
    EXPECT_TRUE(last == std::string::npos || line.substr(last, 4) == "\x1b[0m") << line;
  }
}

}  // namespace
}  // namespace cartesian
