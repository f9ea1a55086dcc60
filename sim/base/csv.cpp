// SPDX-License-Identifier: Apache-2.0
#include "sim/base/csv.hpp"

#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "sim/base/files.hpp"
#include "sim/base/names.hpp"

namespace dssim {
namespace {

std::string_view trim(std::string_view s) {
  const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r'; };
  while (!s.empty() && blank(s.front())) s.remove_prefix(1);
  while (!s.empty() && blank(s.back())) s.remove_suffix(1);
  if (s.size() >= 2 && s.front() == '"' && s.back() == '"') s = s.substr(1, s.size() - 2);
  return s;
}

}  // namespace

CsvTable::CsvTable(const std::filesystem::path& path, std::vector<std::string> columns)
    : CsvTable(read_file(path), path.string(), std::move(columns), 0) {}

CsvTable CsvTable::from_text(std::string text, std::string name, std::vector<std::string> columns) {
  return {std::move(text), std::move(name), std::move(columns), 0};
}

CsvTable::CsvTable(std::string text, std::string name, std::vector<std::string> columns, int)
    : text_(std::move(text)), name_(std::move(name)) {
  if (text_.starts_with("\xef\xbb\xbf")) position_ = 3;  // a spreadsheet's byte order mark
  std::string_view header = take_line();
  if (trim(header).empty())
    throw bad_input(fmt::format("{}:1: the header line is missing; expected {}", name_, join(columns, ",")));
  while (true) {
    const auto comma = header.find(',');
    header_.emplace_back(trim(header.substr(0, comma)));
    if (comma == std::string_view::npos) break;
    header.remove_prefix(comma + 1);
  }
  field_of_header_.assign(header_.size(), -1);
  for (const auto& column : columns) add_column(column);
}

bool CsvTable::has_column(std::string_view name) const {
  for (const auto& h : header_)
    if (h == name) return true;
  return false;
}

size_t CsvTable::add_column(std::string_view name) {
  for (size_t i = 0; i < header_.size(); ++i) {
    if (header_[i] != name) continue;
    if (field_of_header_[i] >= 0) return static_cast<size_t>(field_of_header_[i]);
    field_of_header_[i] = static_cast<int>(columns_.size());
    columns_.emplace_back(name);
    fields_.emplace_back();
    return columns_.size() - 1;
  }
  const auto near = nearest_name(name, header_);
  throw bad_input(fmt::format("{}:1: column '{}' is missing{}; the header has {}", name_, name,
                              near.empty() ? "" : fmt::format(" (is it '{}'?)", near),
                              join(header_, ",").substr(0, 200)));
}

std::string_view CsvTable::take_line() {
  const auto end = text_.find('\n', position_);
  const auto stop = end == std::string::npos ? text_.size() : end;
  const std::string_view line(text_.data() + position_, stop - position_);
  position_ = end == std::string::npos ? text_.size() : end + 1;
  ++line_;
  return line;
}

bool CsvTable::next() {
  while (position_ < text_.size()) {
    std::string_view rest = take_line();
    if (trim(rest).empty()) continue;
    size_t column = 0;
    while (true) {
      const auto comma = rest.find(',');
      if (column >= header_.size())
        throw bad_input(fmt::format("{}:{}: has more fields than the header's {}", name_, line_, header_.size()));
      if (const int field = field_of_header_[column]; field >= 0)
        fields_[static_cast<size_t>(field)] = trim(rest.substr(0, comma));
      ++column;
      if (comma == std::string_view::npos) break;
      rest.remove_prefix(comma + 1);
    }
    if (column < header_.size())
      throw bad_input(fmt::format("{}:{}: has {} fields, the header {}", name_, line_, column, header_.size()));
    return true;
  }
  return false;
}

double CsvTable::number(size_t column) const {
  const std::string_view field = fields_[column];
  double value = 0;
  const auto [end, code] = std::from_chars(field.data(), field.data() + field.size(), value);
  if (code != std::errc() || end != field.data() + field.size() || !std::isfinite(value))
    throw error(column, fmt::format("'{}' is not a finite number", std::string(field.substr(0, 40))));
  return value;
}

int64_t CsvTable::integer(size_t column) const {
  const std::string_view field = fields_[column];
  int64_t value = 0;
  const auto [end, code] = std::from_chars(field.data(), field.data() + field.size(), value);
  if (code != std::errc() || end != field.data() + field.size())
    throw error(column, fmt::format("'{}' is not a whole number", std::string(field.substr(0, 40))));
  return value;
}

Error CsvTable::error(size_t column, std::string_view message) const {
  return bad_input(fmt::format("{}:{}: {}: {}", name_, line_, columns_[column], message));
}

}  // namespace dssim
