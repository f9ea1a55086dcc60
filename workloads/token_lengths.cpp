// SPDX-License-Identifier: Apache-2.0
#include "workloads/token_lengths.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "workloads/trace.hpp"

namespace dssim {
namespace {

constexpr int64_t kMostTokens = 100'000'000;
constexpr std::string_view kForms =
    "{ uniform = { min, max } }, { lognormal = { median, sigma, max } } or { empirical = \"trace or file\" }";

// A name of the catalogue, or a path from the scenario's folder.
std::filesystem::path resolve_trace(const Config& table, const std::string& name,
                                    const std::filesystem::path& base_folder) {
  const auto names = trace_names();
  if (std::find(names.begin(), names.end(), name) != names.end()) return load_trace_info(name).file;
  const std::filesystem::path path = base_folder / name;
  std::error_code code;
  if (std::filesystem::exists(path, code)) return path;
  throw table.error("empirical", fmt::format("'{}' is neither a trace ({}) nor a file", name, fmt::join(names, ", ")));
}

}  // namespace

TokenDistribution::TokenDistribution(const Config& table, const std::filesystem::path& base_folder) {
  if (table.kind("tokens") != Config::Kind::table) {
    if (table.kind("tokens") != Config::Kind::integer && table.kind("tokens") != Config::Kind::absent)
      throw table.error("tokens", fmt::format("must be a whole number, {}", kForms));
    tokens_ = table.integer("tokens", {1, kMostTokens});
    return;
  }
  const Config tokens = table.table("tokens");
  const auto uniform = tokens.find_table("uniform");
  const auto lognormal = tokens.find_table("lognormal");
  const auto empirical = tokens.find_text("empirical");
  if (uniform.has_value() + lognormal.has_value() + empirical.has_value() != 1)
    throw table.error("tokens", fmt::format("must be one of {}", kForms));
  if (uniform) {
    kind_ = Kind::uniform;
    least_ = uniform->integer("min", {1, kMostTokens});
    tokens_ = uniform->integer("max", {1, kMostTokens});
    if (least_ > tokens_) throw uniform->error("min", fmt::format("{} is above max = {}", least_, tokens_));
    return;
  }
  if (lognormal) {
    kind_ = Kind::lognormal;
    median_ = lognormal->number("median", {1, static_cast<double>(kMostTokens)});
    sigma_ = lognormal->number("sigma", {0, 10});
    tokens_ = lognormal->integer("max", {1, kMostTokens});
    if (median_ > static_cast<double>(tokens_))
      throw lognormal->error("median", fmt::format("{} is above max = {}", median_, tokens_));
    return;
  }
  kind_ = Kind::empirical;
  const auto path = resolve_trace(tokens, *empirical, base_folder);
  file_ = path.string();
  const auto reader = open_trace(path);
  TraceRow row;
  while (reader->next(row))
    rows_.push_back({static_cast<int32_t>(row.input_tokens), static_cast<int32_t>(row.output_tokens)});
  if (rows_.empty()) throw tokens.error("empirical", fmt::format("{} has no requests", file_));
}

std::optional<int64_t> TokenDistribution::constant() const {
  if (kind_ == Kind::constant) return tokens_;
  return std::nullopt;
}

int64_t TokenDistribution::draw(RandomStream& random, int32_t TokenPair::*side) const {
  switch (kind_) {
    case Kind::constant:
      return tokens_;
    case Kind::uniform:
      return least_ + static_cast<int64_t>(random.below(static_cast<uint64_t>(tokens_ - least_ + 1)));
    case Kind::lognormal: {
      const double longest = static_cast<double>(tokens_);
      return static_cast<int64_t>(std::clamp(std::round(random.lognormal(median_, sigma_)), 1.0, longest));
    }
    case Kind::empirical:
      return rows_[random.below(rows_.size())].*side;
  }
  return tokens_;
}

TokenLengths::TokenLengths(std::optional<TokenDistribution> input, std::optional<TokenDistribution> output,
                           uint64_t seed)
    : input_(std::move(input)),
      output_(std::move(output)),
      paired_(input_ && output_ && !input_->file().empty() && input_->file() == output_->file()),
      input_random_(seed, "input lengths"),
      output_random_(seed, "output lengths"),
      pair_random_(seed, "lengths") {}

void TokenLengths::draw(int64_t& input_tokens, int64_t& output_tokens) {
  if (paired_) {
    const TokenPair& pair = input_->rows()[pair_random_.below(input_->rows().size())];
    input_tokens = pair.input;
    output_tokens = pair.output;
    return;
  }
  if (input_) input_tokens = input_->draw(input_random_, &TokenPair::input);
  if (output_) output_tokens = output_->draw(output_random_, &TokenPair::output);
}

}  // namespace dssim
