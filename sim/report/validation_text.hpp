// SPDX-License-Identifier: Apache-2.0
#pragma once

// The comparison of predicted and measured as text and as JSON.

#include <string>

#include "sim/results/validation_report.hpp"

namespace dssim {

std::string console_text(const ValidationReport& report, bool colour);
std::string json_text(const ValidationReport& report);

}  // namespace dssim
