// SPDX-License-Identifier: Apache-2.0
#pragma once

// Runs a scenario given as text and reads back its report and its requests.

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "kernels/cost_model.hpp"
#include "sim/base/csv.hpp"
#include "sim/study/serving_run.hpp"

namespace dssim::test {

inline const std::string kLlamaOnH100 = "[cluster]\nnode = \"dgx-h100\"\ngpus = 1\n[model]\nname = \"llama-3-8b\"\n";

struct Row {
  double arrival_s, scheduled_s, first_token_s, done_s;
  int64_t input, output;
};

struct Run {
  ServingReport report;
  std::vector<Row> rows;  // completed requests
  double frontend_s = 0;
};

// A file that goes with the test.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& suffix, const std::string& content = "")
      : path_(std::filesystem::temp_directory_path() /
              ("dssim_" + std::to_string(getpid()) + "_" + std::to_string(next_++) + suffix)) {
    std::ofstream(path_) << content;
  }
  ~TemporaryFile() { std::filesystem::remove(path_); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  static inline int next_ = 0;
  std::filesystem::path path_;
};

inline std::vector<Row> read_rows(const std::filesystem::path& path) {
  std::vector<Row> rows;
  CsvTable csv(path, {"arrival", "input", "output", "scheduled", "first_token", "done"});
  while (csv.next())
    if (!csv.text(5).empty())
      rows.push_back({csv.number(0), csv.number(3), csv.number(4), csv.number(5), csv.integer(1), csv.integer(2)});
  return rows;
}

inline Run run_scenario(const std::string& toml, const std::vector<std::string>& assignments = {}) {
  const TemporaryFile file(".toml", toml), csv(".csv");
  Scenario scenario = read_scenario(file.path(), assignments);
  RunOptions options;
  options.requests_csv = csv.path();
  Run run;
  run.report = run_serving(scenario, options);
  run.rows = read_rows(csv.path());
  run.frontend_s = CostModel::load(scenario.cluster.gpu, scenario.serving.stack).stack().frontend_latency_s;
  return run;
}

}  // namespace dssim::test
