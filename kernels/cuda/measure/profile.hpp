// SPDX-License-Identifier: Apache-2.0
// A profile in the making, in "<folder>.partial", renamed to <folder> when all is there:
//   stack.toml        what dssim reads: title, source, the GPU's rated figures; `complete = true` only at the very end
//   calibration.toml  how it was measured: device, versions, clocks, and for each finished table what the meter saw
//   <table>.csv       one row a measurement; written as ".part" and renamed when finished
#pragma once

#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "kernels/cuda/measure/meter.hpp"

namespace dssim::cuda {

class Table {
 public:
  Table(std::filesystem::path path, const std::string& header);

  // Appends the row "a,b,...,seconds,mad".
  template <typename... Fields>
  void row(const Reading& reading, const Fields&... fields) {
    out_.precision(6);
    ((out_ << fields << ','), ...);
    write_numbers(reading);
  }
  long rows() const { return rows_; }
  void finish();  // renames the file into place; a table that is never finished stays a ".part"

 private:
  void write_numbers(const Reading& reading);

  std::filesystem::path path_;
  std::ofstream out_;
  long rows_ = 0;
};

class Profile {
 public:
  // `replaced`: tables to measure anew in a profile that exists (empty: the folder must not exist yet).
  // resume: take up a partial folder where it was left; otherwise one is begun afresh.
  Profile(std::filesystem::path folder, const std::vector<std::string>& replaced, bool resume);

  bool has(const std::string& table) const { return notes_.count(table) > 0; }
  Table begin(const std::string& table, const std::string& header) const;
  // Finishes the table and notes "key = value" lines about it in calibration.toml.
  void end(Table& table, const std::string& name, const std::vector<std::string>& notes);
  // More lines about a finished table.
  void note(const std::string& table, const std::vector<std::string>& lines);
  struct Description {
    std::vector<std::string> stack_head;   // title and source
    std::vector<std::string> stack_body;   // the tables after `complete`; [engine], the last one, is added to
    std::vector<std::string> calibration;  // device, driver, versions
  };
  void describe(Description description) { description_ = std::move(description); }
  // Packs large tables, drops a report of the tables before, writes stack.toml with complete = true and renames the folder.
  void complete();

  const std::filesystem::path& folder() const { return folder_; }
  const std::filesystem::path& working_folder() const { return partial_; }

 private:
  void read_notes(const std::filesystem::path& calibration_toml);
  // Keeps what the [engine] table of an earlier stack.toml holds beside the calibrator's own keys: the times that the
  // replay's warm-up measured and figures written in by hand, with the comments above them.
  void read_engine(const std::filesystem::path& stack_toml);
  void write_description(bool complete) const;

  std::filesystem::path folder_;
  std::filesystem::path partial_;
  Description description_;
  std::vector<std::string> engine_lines_;  // kept from the profile that is replaced
  std::map<std::string, std::vector<std::string>> notes_;  // finished tables
};

}  // namespace dssim::cuda
