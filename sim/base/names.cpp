// SPDX-License-Identifier: Apache-2.0
#include "sim/base/names.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

namespace dssim {
namespace {

// Optimal string alignment distance (Damerau-Levenshtein without repeated edits of one substring).
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> d(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  auto lower = [](char c) { return std::tolower(static_cast<unsigned char>(c)); };
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t cost = lower(a[i - 1]) == lower(b[j - 1]) ? 0 : 1;
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + cost});
      if (i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) && lower(a[i - 2]) == lower(b[j - 1]))
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  }
  return d[a.size()][b.size()];
}

}  // namespace

std::string nearest_name(std::string_view word, std::span<const std::string> candidates) {
  // A long pasted word cannot be a typing error, and the table above is quadratic.
  if (word.size() > 80) return "";
  std::string best;
  // A third of the letters may be wrong, two in a short word, but never all of them.
  size_t best_distance = std::min(std::max<size_t>(2, word.size() / 3) + 1, word.size());
  for (const auto& candidate : candidates) {
    const size_t distance = edit_distance(word, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

std::string join(std::span<const std::string> words, std::string_view separator) {
  return fmt::format("{}", fmt::join(words.begin(), words.end(), separator));
}

std::string unknown_name(std::string_view kind, std::string_view word, std::span<const std::string> candidates) {
  const std::string shown(word.substr(0, 60));
  std::vector<std::string> longer;
  for (const auto& candidate : candidates)
    if (word.size() >= 3 && candidate.starts_with(word) && longer.size() < 6) longer.push_back("'" + candidate + "'");
  if (!longer.empty()) {
    const std::string last = longer.back();
    longer.pop_back();
    return fmt::format("unknown {} '{}'; did you mean {}{}{}?", kind, shown, join(longer, ", "),
                       longer.empty() ? "" : " or ", last);
  }
  if (const auto near = nearest_name(word, candidates); !near.empty())
    return fmt::format("unknown {} '{}'; did you mean '{}'?", kind, shown, near);
  if (candidates.empty()) return fmt::format("unknown {} '{}'", kind, shown);
  constexpr size_t kShown = 40;
  const auto head = candidates.subspan(0, std::min(candidates.size(), kShown));
  return fmt::format("unknown {} '{}'; valid: {}{}", kind, shown, join(head, ", "),
                     candidates.size() > kShown ? ", …" : "");
}

}  // namespace dssim
