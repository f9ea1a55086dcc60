// SPDX-License-Identifier: Apache-2.0
#pragma once

// What can be named in a scenario, as text: hardware, models, traces and engine stacks.

#include <string>
#include <vector>

namespace dssim {

std::vector<std::string> catalogue_sections();  // "gpus", "nodes", …, "models", "traces", "stacks"
std::string catalogue_overview();               // a line per section
// Errors: bad_input naming the nearest valid section or entry.
std::string catalogue_list(const std::string& section);
std::string catalogue_entry(const std::string& section, const std::string& name);

}  // namespace dssim
