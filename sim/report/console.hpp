// SPDX-License-Identifier: Apache-2.0
#pragma once

// Reports as text for a person: 80 columns, colour only where asked for (a terminal).

#include <string>

#include "sim/results/serving_report.hpp"

namespace dssim {

std::string console_text(const ServingReport& report, bool colour);
std::string console_text(const FitReport& report, bool colour);
std::string console_text(const StepReport& report, bool colour);

}  // namespace dssim
