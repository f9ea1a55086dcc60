// SPDX-License-Identifier: Apache-2.0
#pragma once

// Reports as one JSON object each, SI units; a key that does not apply is absent. The keys are a contract
// (docs/json.md).

#include <string>

#include "sim/results/serving_report.hpp"

namespace dssim {

std::string json_text(const ServingReport& report);
std::string json_text(const FitReport& report);
std::string json_text(const StepReport& report);

}  // namespace dssim
