// SPDX-License-Identifier: Apache-2.0
#pragma once

// Training reports as text for a person: 80 columns or a little more for tables, colour only where asked for.

#include <string>

#include "sim/training/training_report.hpp"

namespace dssim {

std::string console_text(const TrainingReport& report, bool colour);
std::string fit_text(const TrainingReport& report, bool colour);  // memory alone
std::string console_text(const ScaleReport& report, bool colour);
std::string console_text(const SearchReport& report, bool colour);

}  // namespace dssim
