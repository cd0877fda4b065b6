#include "runtime/report/curves.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

namespace cartesian {
namespace {

ScalarTable table_of(std::vector<double> loss) {
  ScalarTable table;
  const std::size_t rows = loss.size();
  for (std::size_t row = 0; row < rows; ++row) {
    table.steps.push_back(static_cast<std::int64_t>(row) + 1);
  }
  table.columns = {{"loss", std::move(loss)},
                   {"step_s", std::vector<double>(rows, 0.5)},
                   {"phase_s.experts", std::vector<double>(rows, 0.25)}};
  return table;
}

TEST(CurvesTest, AShortRunIsKeptWhole) {
  const auto json = curves_json(table_of({3, std::nan(""), 1}), 10);
  EXPECT_EQ(json["step"].dump(), "[1,2,3]");
  EXPECT_EQ(json["seconds"].dump(), "[0.5,1,1.5]");
  EXPECT_EQ(json["columns"]["loss"].dump(), R"({"mean":[3,null,1],"last":1.0})");
}

TEST(CurvesTest, ALongRunKeepsItsExtremes) {
  std::vector<double> loss(1001, 2.0);
  loss[500] = 100;
  loss[700] = -1;
  loss[1000] = 1.23456789;
  const auto json = curves_json(table_of(loss), 10);
  EXPECT_EQ(json["step"].size(), 10U);
  EXPECT_EQ(json["step"].back(), 1001);
  EXPECT_EQ(json["seconds"].back(), 500.5);
  const auto& column = json["columns"]["loss"];
  double most = 0;
  double least = 9;
  for (std::size_t i = 0; i < 10; ++i) {
    most = std::max(most, column["max"][i].get<double>());
    least = std::min(least, column["min"][i].get<double>());
  }
  EXPECT_EQ(most, 100);
  EXPECT_EQ(least, -1);
  EXPECT_EQ(column["last"], 1.23456789);
  EXPECT_FALSE(json["columns"]["phase_s.experts"].contains("min"));
}

TEST(CurvesTest, AnEmptyTableHasNoPoints) {
  EXPECT_EQ(curves_json({}, 10).dump(), R"({"step":[],"seconds":[],"columns":{}})");
}

TEST(CurvesTest, TotalsAreOfEveryStep) {
  const auto json = totals_json(table_of({5, 1, 9}));
  EXPECT_EQ(json["median"]["loss"], 5);
  EXPECT_EQ(totals_json(table_of({5, 1, 9, 7}))["median"]["loss"], 6);
  EXPECT_EQ(json["seconds"], 1.5);
}

TEST(CurvesTest, NumbersAreShort) {
  EXPECT_EQ(short_number(3.14159265).dump(), "3.1416");
  EXPECT_EQ(short_number(12.0).dump(), "12");
  EXPECT_EQ(short_number(1e300).dump(), "1e+300");
  EXPECT_TRUE(short_number(std::nan("")).is_null());
}

}  // namespace
}  // namespace cartesian
