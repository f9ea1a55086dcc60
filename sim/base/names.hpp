// SPDX-License-Identifier: Apache-2.0
#pragma once

// Helps a user who mistyped a name: finds the nearest valid word and says so in one clause.

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace dssim {

// The candidate with the smallest edit distance (insert, delete, replace, swap of neighbours; case ignored), or "" when
// none is near enough to be a plausible typing error.
std::string nearest_name(std::string_view word, std::span<const std::string> candidates);

// "unknown gpu 'h100-smx'; did you mean 'h100-sxm'?"; for the start of valid words, those: "unknown gpu 'h100'; did you
// mean 'h100-nvl', 'h100-pcie' or 'h100-sxm'?"; with no near word, "unknown gpu 'x'; valid: a, b, c".
std::string unknown_name(std::string_view kind, std::string_view word, std::span<const std::string> candidates);

std::string join(std::span<const std::string> words, std::string_view separator);

}  // namespace dssim
