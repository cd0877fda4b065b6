#include "runtime/top/metrics_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>

#include "base/error.h"
#include "base/json.h"
#include "runtime/data/utf8.h"

namespace cartesian {

namespace {

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_blank(char c) { return c == ' ' || c == '\t'; }

/// One line, read from the left.
class LineReader {
 public:
  LineReader(std::string_view line, const std::string& source, std::size_t number)
      : rest_(line), source_(source), number_(number) {}

  bool empty() const { return rest_.empty(); }
  bool at(char c) const { return !rest_.empty() && rest_.front() == c; }

  bool take(char c) {
    if (!at(c)) {
      return false;
    }
    rest_.remove_prefix(1);
    return true;
  }

  void skip_blanks() {
    while (!rest_.empty() && is_blank(rest_.front())) {
      rest_.remove_prefix(1);
    }
  }

  /// Of a metric, which may have colons, or of a label.
  std::string name(bool of_metric) {
    std::size_t size = 0;
    while (size < rest_.size() && (is_letter(rest_[size]) || (of_metric && rest_[size] == ':') ||
                                   (size > 0 && is_digit(rest_[size])))) {
      ++size;
    }
    if (size == 0) {
      fail(of_metric ? "has no metric's name" : "has no label's name");
    }
    return std::string(taken(size));
  }

  /// Up to the next blank.
  std::string_view word() {
    const auto* end = std::ranges::find_if(rest_, is_blank);
    return taken(static_cast<std::size_t>(end - rest_.begin()));
  }

  std::string quoted() {
    if (!take('"')) {
      fail("has a label without a quoted value");
    }
    std::string value;
    while (!take('"')) {
      if (rest_.empty()) {
        fail("has a label's value without an end");
      }
      const char c = taken(1).front();
      value += c == '\\' ? escaped() : c;
    }
    return value;
  }

  [[noreturn]] void fail(std::string_view what) const {
    throw FormatError(fmt::format("{} line {} {}", source_, number_, what));
  }

 private:
  std::string_view taken(std::size_t size) {
    const std::string_view front = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return front;
  }

  char escaped() {
    const char c = rest_.empty() ? '\0' : taken(1).front();
    if (c != '\\' && c != '"' && c != 'n') {
      fail("has a label's value with an unknown escape");
    }
    return c == 'n' ? '\n' : c;
  }

  std::string_view rest_;
  const std::string& source_;
  std::size_t number_;
};

/// As Go's ParseFloat has decimal numbers.
double parse_value(LineReader& line) {
  const std::string_view word = line.word();
  std::string_view digits = word;
  if (digits.starts_with('+')) {
    digits.remove_prefix(1);
  }
  double value = 0;
  const char* end = digits.data() + digits.size();
  const auto [next, error] = std::from_chars(digits.data(), end, value);
  if (error != std::errc() || next != end || digits.starts_with('-') != word.starts_with('-')) {
    line.fail(fmt::format("has {} where its value belongs", quote(word)));
  }
  return value;
}

void parse_timestamp(LineReader& line) {
  const std::string_view word = line.word();
  std::int64_t milliseconds = 0;
  const char* end = word.data() + word.size();
  const auto [next, error] = std::from_chars(word.data(), end, milliseconds);
  if (error != std::errc() || next != end) {
    line.fail(fmt::format("has {} after its value", quote(word)));
  }
}

void parse_labels(LineReader& line, MetricSample& sample) {
  line.skip_blanks();
  while (!line.take('}')) {
    if (sample.labels.size() == kMaxSampleLabels) {
      line.fail(fmt::format("has more than {} labels", kMaxSampleLabels));
    }
    std::string name = line.name(/*of_metric=*/false);
    line.skip_blanks();
    if (!line.take('=')) {
      line.fail("has a label without '='");
    }
    line.skip_blanks();
    std::string value = line.quoted();
    if (std::ranges::any_of(sample.labels, [&](const auto& own) { return own.first == name; })) {
      line.fail(fmt::format("has the label {} twice", name));
    }
    sample.labels.emplace_back(std::move(name), std::move(value));
    line.skip_blanks();
    if (!line.take(',') && !line.at('}')) {
      line.fail("has a label without ',' or '}' behind it");
    }
    line.skip_blanks();
  }
}

MetricSample parse_sample(LineReader& line) {
  MetricSample sample;
  sample.name = line.name(/*of_metric=*/true);
  line.skip_blanks();
  if (line.take('{')) {
    parse_labels(line, sample);
    line.skip_blanks();
  }
  sample.value = parse_value(line);
  line.skip_blanks();
  if (!line.empty()) {
    parse_timestamp(line);
    line.skip_blanks();
  }
  if (!line.empty()) {
    line.fail("goes on after its value");
  }
  return sample;
}

/// After '#'. Other words than HELP and TYPE begin a comment.
void check_comment(LineReader& line) {
  constexpr std::array<std::string_view, 5> kTypes = {"counter", "gauge", "histogram", "summary",
                                                      "untyped"};
  line.skip_blanks();
  const std::string_view keyword = line.word();
  if (keyword != "HELP" && keyword != "TYPE") {
    return;
  }
  line.skip_blanks();
  line.name(/*of_metric=*/true);
  if (keyword == "TYPE") {
    line.skip_blanks();
    const std::string_view type = line.word();
    if (std::ranges::find(kTypes, type) == kTypes.end()) {
      line.fail(fmt::format("has the unknown type {}", quote(type)));
    }
  }
}

}  // namespace

std::string_view MetricSample::label(std::string_view wanted) const {
  const auto found = std::ranges::find(labels, wanted, [](const auto& own) { return own.first; });
  return found == labels.end() ? std::string_view() : std::string_view(found->second);
}

std::vector<MetricSample> parse_metrics_text(std::string_view text, const std::string& source) {
  if (text.size() > kMaxMetricsBytes) {
    throw FormatError(fmt::format("{} has more than {} bytes", source, kMaxMetricsBytes));
  }
  if (const auto invalid = find_invalid_utf8(text)) {
    const auto number =
        std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(*invalid), '\n') + 1;
    throw FormatError(fmt::format("{} line {} is not UTF-8", source, number));
  }
  std::vector<MetricSample> samples;
  for (std::size_t number = 1; !text.empty(); ++number) {
    const std::size_t size = text.find('\n');
    LineReader line(text.substr(0, size), source, number);
    if (size == std::string_view::npos) {
      line.fail("is cut off");
    }
    text.remove_prefix(size + 1);
    line.skip_blanks();
    if (line.take('#')) {
      check_comment(line);
    } else if (!line.empty()) {
      if (samples.size() == kMaxMetricSamples) {
        line.fail(fmt::format("is one more than {} samples", kMaxMetricSamples));
      }
      samples.push_back(parse_sample(line));
    }
  }
  return samples;
}

}  // namespace cartesian
