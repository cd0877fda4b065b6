#include "runtime/top/load_bars.h"

#include <gtest/gtest.h>

#include <vector>

namespace cartesian {
namespace {

std::string share(double value, std::size_t width) { return share_bar(value, width).text(false); }
std::string cells(const std::vector<double>& loads, std::size_t width) {
  return load_cells(loads, width).text(false);
}

TEST(LoadBars, Shares) {
  EXPECT_EQ(share(0, 4), "");
  EXPECT_EQ(share(0.5, 4), "██");
  EXPECT_EQ(share(0.53125, 4), "██▏");
  EXPECT_EQ(share(1, 4), "████");
  EXPECT_EQ(share(7, 4), "████");
  EXPECT_EQ(share(-1, 4), "");
  EXPECT_EQ(share(0.5, 0), "");
  EXPECT_EQ(share_bar(0.3, 9).width(), 9);
}

TEST(LoadBars, CellsAreAgainstTheHighest) {
  EXPECT_EQ(cells({0, 1, 2, 3, 4, 5, 6, 7, 8}, 9), "·▁▂▃▄▅▆▇█");
  EXPECT_EQ(cells({1e-9, 8}, 2), "▁█") << "a little is not nothing";
  EXPECT_EQ(cells({0, 0}, 2), "··");
  EXPECT_EQ(cells({}, 4), "");
  EXPECT_EQ(cells({1}, 0), "");
}

TEST(LoadBars, FewExpertsAreWide) {
  EXPECT_EQ(cells({8, 4}, 6), "███▄▄▄");
  EXPECT_EQ(cells({8, 4}, 100), "████▄▄▄▄");
}

TEST(LoadBars, ManyExpertsShareCells) {
  EXPECT_EQ(experts_per_cell(9, 4), 3);
  EXPECT_EQ(experts_per_cell(4, 4), 1);
  EXPECT_EQ(cells({8, 0, 0, 4, 0, 0, 0, 0, 0}, 4), "█▄·");
}

TEST(LoadBars, OverloadIsColoured) {
  EXPECT_EQ(load_cells(std::vector<double>{9, 1, 1, 1}, 4).text(true),
            "\x1b[0;1;31m█\x1b[0;36m▁▁▁\x1b[0m");
  EXPECT_EQ(load_cells(std::vector<double>{8, 4, 4, 4}, 4).text(true),
            "\x1b[0;33m█\x1b[0;36m▄▄▄\x1b[0m");
}

}  // namespace
}  // namespace cartesian
