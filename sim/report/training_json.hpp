// SPDX-License-Identifier: Apache-2.0
#pragma once

// Training reports as one JSON object each, SI units; the keys are a contract (docs/training.md). The six parts of
// training.breakdown sum to training.step_s; those of training.other sum to breakdown.other_s.

#include <string>

#include "sim/training/training_report.hpp"

namespace dssim {

std::string json_text(const TrainingReport& report);
std::string fit_json_text(const TrainingReport& report);  // memory alone
std::string json_text(const ScaleReport& report);
std::string json_text(const SearchReport& report);

}  // namespace dssim
