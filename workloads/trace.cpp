// SPDX-License-Identifier: Apache-2.0
#include "workloads/trace.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "sim/base/config.hpp"
#include "sim/base/files.hpp"
#include "sim/base/names.hpp"
#include "workloads/line_reader.hpp"

namespace dssim {
namespace {

// Beyond any prompt and any run: what is larger is a wrong column or a clock that counts from 1970.
constexpr int64_t kMostTokens = 100'000'000;
constexpr double kLatestArrival_s = 1e8;

std::filesystem::path traces_folder() {
  return data_root() / "workloads/traces";
}

std::string_view trim(std::string_view s) {
  const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r'; };
  while (!s.empty() && blank(s.front())) s.remove_prefix(1);
  while (!s.empty() && blank(s.back())) s.remove_suffix(1);
  if (s.size() >= 2 && s.front() == '"' && s.back() == '"') s = s.substr(1, s.size() - 2);
  return s;
}

template <typename Number>
bool parse_all(std::string_view text, Number& value) {
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  return code == std::errc() && end == text.data() + text.size();
}

std::string shown(std::string_view field) {
  std::string text(field.substr(0, 40));
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20) c = '?';
  return text;
}

// "2023-11-16 18:15:46.6805900", with an optional "Z" or "+hh:mm" behind, to 100 ns ticks since 1970; nullopt where it
// is not a date. Whole ticks keep the difference of two dates exact, where doubles since 1970 would round to 0.2 µs.
constexpr int64_t kTicksPerSecond = 10'000'000;

std::optional<int> digits(std::string_view text, size_t at, size_t count) {
  if (at + count > text.size()) return std::nullopt;
  int value = 0;
  for (const char c : text.substr(at, count)) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + (c - '0');
  }
  return value;
}

// Days from 1970-01-01 in the Gregorian calendar (Howard Hinnant's chrono-compatible algorithm).
int64_t days_from_civil(int64_t year, int64_t month, int64_t day) {
  year -= month <= 2;
  const int64_t era = year / 400, year_of_era = year - era * 400;
  const int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
  return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719468;
}

std::optional<int64_t> parse_date(std::string_view s) {
  const auto year = digits(s, 0, 4), month = digits(s, 5, 2), day = digits(s, 8, 2);
  const auto hour = digits(s, 11, 2), minute = digits(s, 14, 2), second = digits(s, 17, 2);
  if (!year || !month || !day || !hour || !minute || !second) return std::nullopt;
  if (s[4] != '-' || s[7] != '-' || (s[10] != ' ' && s[10] != 'T') || s[13] != ':' || s[16] != ':') return std::nullopt;
  if (*month < 1 || *month > 12 || *day < 1 || *day > 31 || *hour > 23 || *minute > 59 || *second > 60)
    return std::nullopt;
  int64_t ticks =
      (days_from_civil(*year, *month, *day) * 86400 + *hour * 3600 + *minute * 60 + *second) * kTicksPerSecond;
  size_t at = 19;
  if (at < s.size() && s[at] == '.') {
    ++at;
    for (int64_t unit = kTicksPerSecond / 10; at < s.size() && s[at] >= '0' && s[at] <= '9'; ++at, unit /= 10)
      ticks += unit * (s[at] - '0');
  }
  if (at == s.size() || s.substr(at) == "Z") return ticks;
  const auto offset_hours = digits(s, at + 1, 2), offset_minutes = digits(s, at + 4, 2);
  if ((s[at] != '+' && s[at] != '-') || s.size() != at + 6 || s[at + 3] != ':' || !offset_hours || !offset_minutes)
    return std::nullopt;
  const int64_t offset = (*offset_hours * 3600 + *offset_minutes * 60) * kTicksPerSecond;
  return s[at] == '+' ? ticks - offset : ticks + offset;
}

// Reads either CSV format: three of its columns by name, wherever they stand.
class CsvTrace : public TraceReader {
 public:
  explicit CsvTrace(const std::filesystem::path& path) : lines_(path) {
    std::string_view line;
    const char* expected = "arrival,input,output or TIMESTAMP,ContextTokens,GeneratedTokens";
    if (!lines_.next(line))
      throw bad_input(fmt::format("{}: is empty; the first line must name the columns {}", lines_.name(), expected));
    if (line.starts_with("\xef\xbb\xbf")) line.remove_prefix(3);  // a spreadsheet's byte order mark
    std::vector<std::string> header;
    for (size_t at = 0; at <= line.size();) {
      const size_t comma = std::min(line.find(',', at), line.size());
      header.emplace_back(trim(line.substr(at, comma - at)));
      at = comma + 1;
    }
    columns_ = header.size();
    dates_ = std::find(header.begin(), header.end(), "TIMESTAMP") != header.end();
    for (size_t i = 0; i < 3; ++i) {
      const auto found = std::find(header.begin(), header.end(), name(i));
      if (found == header.end())
        throw bad_input(
            fmt::format("{}:1: column '{}' is missing; the header must name {}", lines_.name(), name(i), expected));
      if (std::find(found + 1, header.end(), name(i)) != header.end())
        throw bad_input(fmt::format("{}:1: column '{}' is there twice", lines_.name(), name(i)));
      column_[i] = static_cast<size_t>(found - header.begin());
    }
  }

  bool next(TraceRow& row) override {
    std::string_view line;
    do {
      if (!lines_.next(line)) return false;
    } while (trim(line).empty());
    std::string_view fields[3];
    size_t count = 0;
    for (size_t at = 0; at <= line.size(); ++count) {
      const size_t comma = std::min(line.find(',', at), line.size());
      for (size_t i = 0; i < 3; ++i)
        if (column_[i] == count) fields[i] = trim(line.substr(at, comma - at));
      at = comma + 1;
    }
    if (count != columns_) throw bad_input(fmt::format("{}: has {} fields, the header {}", where(), count, columns_));
    row.arrival_s = dates_ ? date(fields[0]) : seconds(fields[0]);
    row.input_tokens = tokens(fields[1], 1);
    row.output_tokens = tokens(fields[2], 2);
    row.blocks = {};
    return true;
  }
  std::string_view format() const override { return dates_ ? "azure" : "csv"; }
  std::string where() const override { return fmt::format("{}:{}", lines_.name(), lines_.line()); }

 private:
  const char* name(size_t i) const {
    static constexpr const char* kPlain[] = {"arrival", "input", "output"};
    static constexpr const char* kAzure[] = {"TIMESTAMP", "ContextTokens", "GeneratedTokens"};
    return dates_ ? kAzure[i] : kPlain[i];
  }
  Error error(size_t i, std::string_view message) const {
    return bad_input(fmt::format("{}: {}: {}", where(), name(i), message));
  }
  double seconds(std::string_view field) const {
    double value = 0;
    if (!parse_all(field, value) || !std::isfinite(value))
      throw error(0, fmt::format("'{}' is not a number of seconds", shown(field)));
    if (value < 0 || value > kLatestArrival_s)
      throw error(0, fmt::format("{} s is outside 0 to {:g} s; count from the start of the run", shown(field),
                                 kLatestArrival_s));
    return value;
  }
  double date(std::string_view field) {
    const auto ticks = parse_date(field);
    if (!ticks) throw error(0, fmt::format("'{}' is not a date such as 2023-11-16 18:15:46.6805900", shown(field)));
    if (!first_tick_) first_tick_ = *ticks;
    const double value = static_cast<double>(*ticks - *first_tick_) / static_cast<double>(kTicksPerSecond);
    if (value < 0) throw error(0, fmt::format("'{}' is earlier than the first row", shown(field)));
    if (value > kLatestArrival_s)
      throw error(0, fmt::format("'{}' is more than {:g} s after the first row", shown(field), kLatestArrival_s));
    return value;
  }
  int64_t tokens(std::string_view field, size_t i) const {
    int64_t value = 0;
    if (!parse_all(field, value)) throw error(i, fmt::format("'{}' is not a whole number of tokens", shown(field)));
    if (value < 1 || value > kMostTokens)
      throw error(i, fmt::format("{} is outside 1 to {} tokens", value, kMostTokens));
    return value;
  }

  LineReader lines_;
  bool dates_ = false;
  size_t columns_ = 0, column_[3] = {};
  std::optional<int64_t> first_tick_;
};

// Mooncake's lines are JSON objects of four known keys, so they are scanned rather than parsed into a tree. The text is
// kept whole, because rows hand out views of their hash_ids.
class MooncakeTrace : public TraceReader {
 public:
  explicit MooncakeTrace(const std::filesystem::path& path) : name_(path.string()), text_(read_file(path)) {}

  bool next(TraceRow& row) override {
    std::string_view line;
    do {
      if (position_ >= text_.size()) return false;
      const size_t end = std::min(text_.find('\n', position_), text_.size());
      line = trim(std::string_view(text_).substr(position_, end - position_));
      position_ = end + 1;
      ++line_;
    } while (line.empty());
    if (line.front() != '{' || line.back() != '}')
      throw bad_input(fmt::format("{}: is not one JSON object (cut off?)", where()));
    const double milliseconds = number(line, "timestamp");
    row.arrival_s = milliseconds / 1e3;
    if (!(row.arrival_s >= 0 && row.arrival_s <= kLatestArrival_s))
      throw error("timestamp", fmt::format("{:g} ms is outside 0 to {:g} ms", milliseconds, kLatestArrival_s * 1e3));
    row.input_tokens = tokens(line, "input_length");
    row.output_tokens = tokens(line, "output_length");
    row.blocks = blocks(line, row.input_tokens);
    return true;
  }
  std::string_view format() const override { return "mooncake"; }
  std::string where() const override { return fmt::format("{}:{}", name_, line_); }

 private:
  Error error(std::string_view key, std::string_view message) const {
    return bad_input(fmt::format("{}: {}: {}", where(), key, message));
  }
  std::string_view value(std::string_view line, std::string_view key) const {
    const std::string quoted = fmt::format("\"{}\"", key);
    const size_t at = line.find(quoted);
    const size_t colon = at == std::string_view::npos ? at : line.find_first_not_of(' ', at + quoted.size());
    if (colon == std::string_view::npos || line[colon] != ':') throw error(key, "is missing");
    const std::string_view rest = trim(line.substr(colon + 1));
    return rest.starts_with('[') ? rest : trim(rest.substr(0, rest.find_first_of(",}")));
  }
  double number(std::string_view line, std::string_view key) const {
    const std::string_view text = value(line, key);
    double result = 0;
    if (!parse_all(text, result) || !std::isfinite(result))
      throw error(key, fmt::format("'{}' is not a number", shown(text)));
    return result;
  }
  int64_t tokens(std::string_view line, std::string_view key) const {
    const std::string_view text = value(line, key);
    int64_t result = 0;
    if (!parse_all(text, result)) throw error(key, fmt::format("'{}' is not a whole number of tokens", shown(text)));
    if (result < 1 || result > kMostTokens)
      throw error(key, fmt::format("{} is outside 1 to {} tokens", result, kMostTokens));
    return result;
  }
  // One whole number a block: checked here once, so that whoever reads the view later need not.
  std::string_view blocks(std::string_view line, int64_t input_tokens) const {
    std::string_view text = value(line, "hash_ids");
    const size_t close = text.find(']');
    if (!text.starts_with('[') || close == std::string_view::npos)
      throw error("hash_ids", "must be a list of whole numbers");
    text = text.substr(1, close - 1);
    int64_t count = 0;
    for (std::string_view rest = text; !trim(rest).empty(); ++count) {
      const size_t comma = std::min(rest.find(','), rest.size());
      uint64_t id = 0;
      if (!parse_all(trim(rest.substr(0, comma)), id))
        throw error("hash_ids", fmt::format("'{}' is not a whole number", shown(rest.substr(0, comma))));
      rest.remove_prefix(std::min(comma + 1, rest.size()));
    }
    const int64_t expected = (input_tokens + kMooncakeBlockTokens - 1) / kMooncakeBlockTokens;
    if (count != expected)
      throw error("hash_ids", fmt::format("has {} ids, but {} tokens are {} blocks of {}", count, input_tokens,
                                          expected, kMooncakeBlockTokens));
    return text;
  }

  std::string name_, text_;
  size_t position_ = 0;
  int line_ = 0;
};

}  // namespace

std::vector<std::string> trace_names() {
  return names_in(traces_folder(), ".toml");
}

TraceInfo load_trace_info(const std::string& name) {
  const auto names = trace_names();
  if (std::find(names.begin(), names.end(), name) == names.end()) throw bad_input(unknown_name("trace", name, names));
  const Config entry = Config::load((traces_folder() / (name + ".toml")).string());
  TraceInfo info;
  info.name = name;
  info.title = entry.text("title");
  info.source = entry.text("source");
  info.licence = entry.text("licence");
  const std::vector<std::string> formats{"csv", "azure", "mooncake"};
  info.format = entry.choice("format", formats);
  info.file = traces_folder() / entry.text("file");
  info.requests = static_cast<uint64_t>(entry.integer("requests", {2, 1'000'000'000'000}));
  info.duration_s = entry.quantity("duration", Dimension::time);
  if (info.duration_s <= 0) throw entry.error("duration", "must be longer than nothing");
  info.mean_input_tokens = entry.number("mean_input_tokens", {1, 1e9});
  info.mean_output_tokens = entry.number("mean_output_tokens", {1, 1e9});
  entry.finish();
  return info;
}

std::unique_ptr<TraceReader> open_trace(const std::filesystem::path& path) {
  const std::string file = path.filename().string();
  if (file.ends_with(".jsonl") || file.ends_with(".jsonl.gz")) return std::make_unique<MooncakeTrace>(path);
  return std::make_unique<CsvTrace>(path);
}

LoadedTrace load_trace(const std::filesystem::path& path) {
  LoadedTrace trace;
  trace.reader = open_trace(path);
  TraceRow row;
  while (trace.reader->next(row)) trace.rows.push_back(row);
  if (trace.rows.empty()) throw bad_input(fmt::format("{}: has no requests", path.string()));
  std::stable_sort(trace.rows.begin(), trace.rows.end(),
                   [](const TraceRow& a, const TraceRow& b) { return a.arrival_s < b.arrival_s; });
  return trace;
}

}  // namespace dssim
