#include "base/json.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "tests/support/expect_error.h"

namespace cartesian {
namespace {

void expect_refused(std::string_view text, std::initializer_list<std::string> mentions) {
  expect_error<FormatError>([&] { (void)parse_json(text, "a.json"); }, mentions);
}

TEST(Json, ParsesWhatIsValid) {
  const auto value = parse_json(R"({"a": [1, -2, 3.5], "b": {"a": null}})", "a.json");
  EXPECT_EQ(value["a"][1], -2);
  EXPECT_TRUE(value["b"]["a"].is_null());
}

TEST(Json, RefusesByNameAndPosition) {
  expect_refused("", {"a.json", "line 1, column 1"});
  expect_refused("{\"a\": 1,\n  oops}", {"a.json", "line 2, column 3"});
  expect_refused("{} {}", {"a.json", "not valid JSON"});
  expect_refused("\"\xFF\"", {"a.json", "not valid JSON"});
  expect_refused(std::string_view("{}\n\0x", 5), {"a.json", "line 2, column 1", "NUL"});
  expect_refused("[1e999]", {"a.json", "not valid JSON"});
  expect_refused(R"({"k": 1, "k": 2})", {"a.json", "\"k\"", "twice"});
  expect_refused(std::string(100'000, '['), {"a.json", "deeper"});
  std::string objects;
  for (int i = 0; i < 100; ++i) {
    objects += "{\"a\":";
  }
  expect_refused(objects, {"a.json", "deeper"});
}

TEST(Json, ChecksKeys) {
  const auto value = parse_json(R"({"version": 1, "shpae": [3]})", "a.json");
  expect_error<FormatError>(
      [&] {
        check_json_keys(value, {"version", "shape"}, "a.json");
      },
      {"a.json", "\"shpae\"", "did you mean 'shape'"});
  expect_error<FormatError>([&] { (void)json_at(value, "data", "a.json"); },
                            {"a.json", "\"data\"", "missing"});
  expect_error<FormatError>([&] { (void)json_at(value["shpae"], "data", "a.json"); },
                            {"a.json", "object"});
  EXPECT_EQ(json_at(value, "version", "a.json"), 1);
}

TEST(Json, ChecksIntegers) {
  const auto read = [](const char* text) {
    return json_integer(parse_json(text, "a.json"), 0, 100, "\"n\"", "a.json");
  };
  EXPECT_EQ(read("100"), 100);
  for (const char* text : {"-1", "101", "18446744073709551615", "9223372036854775808", "1.0",
                           "true", "\"1\"", "null", "[1]"}) {
    expect_error<FormatError>([&] { (void)read(text); }, {"a.json", "\"n\""});
  }
}

TEST(Json, QuotesNames) {
  EXPECT_EQ(quote("a.weight"), "\"a.weight\"");
  EXPECT_EQ(quote("a\n\x1b[0m\""), "\"a\\n\\u001b[0m\\\"\"");
  EXPECT_LT(quote(std::string(1000, 'x')).size(), 130U);
  EXPECT_FALSE(quote("\xFF\xFE").empty());
}

}  // namespace
}  // namespace cartesian
