#include "runtime/report/page.h"

#include <gtest/gtest.h>

#include "base/html.h"

namespace cartesian {
namespace {

RunData run_of(const std::string& name) {
  RunData run;
  run.path = name;
  run.name = name;
  run.config = {{"train.steps", "3"}};
  run.steps.steps = {1, 2};
  run.steps.columns = {{"loss", {2.5, 2.25}}};
  return run;
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (std::size_t at = 0; (at = text.find(part, at)) != std::string::npos; at += part.size()) {
    ++found;
  }
  return found;
}

TEST(PageTest, NamesCannotLeaveTheirPlace) {
  const std::string hostile = "</script><b>&\"/*TITLE*/ /*DATA*/ <!-- \xff";
  const std::string page = make_page({run_of(hostile)});
  EXPECT_EQ(count(page, "</script>"), 2U);
  EXPECT_EQ(count(page, "<b>"), 0U);
  EXPECT_EQ(count(page, "<!--"), 0U);
  EXPECT_NE(page.find("<title>&lt;/script&gt;&lt;b&gt;&amp;&quot;/*TITLE*/ /*DATA*/"),
            std::string::npos);
}

TEST(PageTest, TheTitleCountsRuns) {
  EXPECT_NE(make_page({run_of("a"), run_of("b")}).find("<title>2 runs"), std::string::npos);
}

TEST(PageTest, EscapesKeepTheMeaning) {
  EXPECT_EQ(script_safe(R"({"a":"<>&"})"), R"({"a":"\u003c\u003e\u0026"})");
  EXPECT_EQ(html_escaped("a<b>&\"c"), "a&lt;b&gt;&amp;&quot;c");
}

}  // namespace
}  // namespace cartesian
