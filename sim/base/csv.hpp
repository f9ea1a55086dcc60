// SPDX-License-Identifier: Apache-2.0
#pragma once

// Comma-separated tables with a header line (plain or .gz), read row by row without copying.
//
//   CsvTable csv("trace.csv", {"arrival", "input", "output"});   // these columns must be there; others are passed over
//   while (csv.next()) use(csv.number(0), csv.integer(1), csv.integer(2));
//
// Quoted fields are accepted where they hold no comma. Errors name file:line: column.

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "sim/base/error.hpp"

namespace dssim {

class CsvTable {
 public:
  CsvTable(const std::filesystem::path& path, std::vector<std::string> columns);
  static CsvTable from_text(std::string text, std::string name, std::vector<std::string> columns);

  bool next();  // false after the last row
  int line() const { return line_; }
  // Whether the header names this column (asked before reading, for columns that may be there).
  bool has_column(std::string_view name) const;
  size_t add_column(std::string_view name);  // its index for text/number/integer; the column must exist

  std::string_view text(size_t column) const { return fields_[column]; }
  double number(size_t column) const;    // finite
  int64_t integer(size_t column) const;  // whole
  Error error(size_t column, std::string_view message) const;

 private:
  CsvTable(std::string text, std::string name, std::vector<std::string> columns, int);
  std::string_view take_line();

  std::string text_, name_;
  std::vector<std::string> columns_;
  std::vector<std::string> header_;
  std::vector<int> field_of_header_;  // header position → index into fields_, or −1
  std::vector<std::string_view> fields_;
  size_t position_ = 0;
  int line_ = 0;
};

}  // namespace dssim
