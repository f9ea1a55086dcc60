// SPDX-License-Identifier: Apache-2.0
#pragma once

// Parts that every console report has.

#include "sim/report/text_layout.hpp"
#include "sim/results/serving_report.hpp"

namespace dssim {

void add_setup(TextLayout& out, const Setup& setup);
void add_trust(TextLayout& out, const Trust& trust);

}  // namespace dssim
