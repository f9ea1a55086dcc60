// SPDX-License-Identifier: Apache-2.0
#pragma once

// Predicted beside measured: of a replayed load (latency figures) and of single engine iterations (errors by kind).

#include <string>
#include <vector>

#include "sim/results/serving_report.hpp"

namespace dssim {

struct ComparedFigure {
  std::string name;  // "TTFT p50"
  double measured_s = 0, predicted_s = 0;
  double error() const { return predicted_s / measured_s - 1; }
};

// Relative errors of many iterations of one kind.
struct IterationErrors {
  std::string kind;  // "decode", "prefill", "mixed", "all"
  uint64_t count = 0;
  double median = 0, p90 = 0;  // of |predicted / measured − 1|
  double bias = 0;             // sum of predicted / sum of measured − 1
  double measured_s = 0;       // summed
};

struct ValidationReport {
  Setup setup;
  std::vector<ComparedFigure> figures;      // empty where no requests were given
  std::vector<IterationErrors> iterations;  // empty where none were given
  Trust trust;
};

}  // namespace dssim
