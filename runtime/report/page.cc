#include "runtime/report/page.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/html.h"
#include "runtime/report/curves.h"
#include "runtime/report/expert_history.h"
#include "runtime/report/page_files.h"
#include "runtime/version.h"

namespace cartesian {

namespace {

using nlohmann::ordered_json;

// What all runs of a page share.
constexpr std::size_t kPoints = 1600;     // of each curve
constexpr std::size_t kNumbers = 120000;  // of loads, and of pairs

ordered_json run_json(const RunData& run, std::size_t runs) {
  const std::size_t points = std::clamp<std::size_t>(kPoints / runs, 60, 600);
  ordered_json config = ordered_json::object();
  for (const auto& [key, value] : run.config) {
    config[key] = value;
  }
  return {{"name", run.name},
          {"path", run.path.string()},
          {"config", std::move(config)},
          {"environment", run.environment},
          {"summary", run.summary},
          {"last_step", run.steps.steps.back()},
          {"steps", curves_json(run.steps, points)},
          {"totals", totals_json(run.steps)},
          {"validations", curves_json(run.validations, points)},
          {"experts", expert_history_json(run.experts, kNumbers / runs)}};
}

/// `text` with `mark`, which it holds once, replaced.
void fill(std::string& text, std::string_view mark, std::string_view with) {
  const std::size_t at = text.find(mark);
  check(at != std::string::npos, "the page's template has this mark");
  text.replace(at, mark.size(), with);
}

}  // namespace

std::string script_safe(std::string json) {
  // None of these stands outside a string in JSON, and inside one the escape means the same.
  for (const auto& [character, escape] :
       {std::pair{'<', "\\u003c"}, std::pair{'>', "\\u003e"}, std::pair{'&', "\\u0026"}}) {
    for (std::size_t at = 0; (at = json.find(character, at)) != std::string::npos;) {
      json.replace(at, 1, escape);
    }
  }
  return json;
}

std::string make_page(const std::vector<RunData>& runs) {
  ordered_json data = {{"version", version()}, {"runs", ordered_json::array()}};
  for (const RunData& run : runs) {
    data["runs"].push_back(run_json(run, runs.size()));
  }
  // Names of files may hold any bytes; a page is UTF-8, here even ASCII.
  const std::string json =
      data.dump(-1, ' ', /*ensure_ascii=*/true, ordered_json::error_handler_t::replace);
  const std::string title =
      runs.size() == 1 ? runs.front().name : fmt::format("{} runs", runs.size());
  std::string page = kPageTemplate;
  fill(page, "/*STYLE*/", kPageStyle);
  fill(page, "/*SCRIPT*/", kPageScript);
  fill(page, "/*DATA*/", script_safe(json));
  // Last: its mark is the first in the page, and what others wrote may look like a mark.
  fill(page, "/*TITLE*/", html_escaped(title));
  return page;
}

}  // namespace cartesian
