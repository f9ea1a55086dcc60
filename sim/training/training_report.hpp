// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a training run, a scaling table and a search for layouts found out, as plain data for the printers of
// sim/report. SI units.

#include <optional>
#include <string>
#include <vector>

#include "sim/results/serving_report.hpp"
#include "sim/training/step.hpp"

namespace dssim {

struct TrainingReport {
  Setup setup;
  TrainingJob job;
  TrainingStep step;
  // Tokens/s/GPU over those of one replica by itself (the fewest data ranks that the layout allows), same work a GPU.
  double scaling_efficiency = 1;
  Bottleneck bottleneck;
  Trust trust;
  std::vector<std::string> notes, remedies;
  double capital_usd = 0, power_w = 0;  // 0 where unknown
  double wall_s = 0;
};

// One row of a scaling table. Efficiency is tokens/s/GPU over that of the first row that runs.
struct ScalePoint {
  int gpus = 0;
  std::optional<TrainingReport> report;  // empty where it cannot run
  std::string reason;                    // why not
  double efficiency = 1;
  std::string lost;  // "3.1 % data, 0.9 % stragglers": shares of the first row's throughput a GPU, largest first
};

struct ScaleReport {
  Setup setup;
  std::vector<ScalePoint> weak, strong;
  double wall_s = 0;
};

struct LayoutAnswer {
  TrainingJob job;
  std::optional<TrainingStep> step;  // of those that run
  std::string reason;                // of those that do not
};

struct SearchReport {
  Setup setup;
  std::vector<LayoutAnswer> feasible;    // quickest first
  std::vector<LayoutAnswer> infeasible;  // nearest to fitting first
  size_t examined = 0;
  double wall_s = 0;
};

}  // namespace dssim
