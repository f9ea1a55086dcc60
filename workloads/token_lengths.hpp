// SPDX-License-Identifier: Apache-2.0
#pragma once

// How many tokens a prompt or an answer has: a number, a distribution, or lengths drawn from a recorded trace.
//
//   tokens = 575
//   tokens = { lognormal = { median = 400, sigma = 1.1, max = 4096 } }   rounded; at least 1, cut to max
//   tokens = { uniform = { min = 819, max = 1024 } }                     each whole number as likely as any other
//   tokens = { empirical = "azure-2023-conv" }                           a trace of the catalogue, or a file
//
// Where prompt and answer name the same trace, its rows are drawn as pairs, so that long prompts keep their answers.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "sim/base/config.hpp"
#include "sim/base/random.hpp"

namespace dssim {

struct TokenPair {
  int32_t input, output;
};

// One `tokens` key.
class TokenDistribution {
 public:
  // Reads `tokens` of the table ([workload] prompt or output).
  TokenDistribution(const Config& table, const std::filesystem::path& base_folder);

  // Of a constant; nullopt where lengths vary.
  std::optional<int64_t> constant() const;
  int64_t draw(RandomStream& random, int32_t TokenPair::*side) const;
  // The file of an empirical distribution, "" for others; and its rows.
  const std::string& file() const { return file_; }
  const std::vector<TokenPair>& rows() const { return rows_; }

 private:
  enum class Kind { constant, uniform, lognormal, empirical };
  Kind kind_ = Kind::constant;
  int64_t tokens_ = 0;  // the constant, or the distribution's max
  int64_t least_ = 0;   // the uniform's min
  double median_ = 0, sigma_ = 0;
  std::string file_;
  std::vector<TokenPair> rows_;
};

// Both lengths of a request, each from its own substream of the seed. A side without a distribution is left as it was.
class TokenLengths {
 public:
  TokenLengths(std::optional<TokenDistribution> input, std::optional<TokenDistribution> output, uint64_t seed);

  void draw(int64_t& input_tokens, int64_t& output_tokens);

 private:
  std::optional<TokenDistribution> input_, output_;
  bool paired_;
  RandomStream input_random_, output_random_, pair_random_;
};

}  // namespace dssim
