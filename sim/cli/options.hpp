// SPDX-License-Identifier: Apache-2.0
#pragma once

// What several subcommands share: the scenario argument, --set, --seed, --json, --quiet, and printing their answer.

#include <boost/program_options.hpp>
#include <optional>
#include <string>
#include <vector>

#include "sim/study/scenario.hpp"

namespace dssim {

struct CommonOptions {
  std::string scenario;
  std::vector<std::string> assignments;
  std::optional<uint64_t> seed;
  std::optional<std::string> json;  // a file, or "-"
  bool quiet = false;

  Scenario read() const;  // a serving scenario
};

namespace po = boost::program_options;

po::options_description common_description(CommonOptions& options);
// Parses `words`, the first positional one being the scenario. False where --help was asked for, which is then printed.
// Errors: bad_input, one line.
bool parse(const std::vector<std::string>& words, const po::options_description& description, CommonOptions& options,
           po::variables_map& values, std::string_view usage);

// A whole number within a range, else bad_input naming the option.
int64_t parse_count(const std::string& option, const std::string& text, int64_t least, int64_t most);

// The text on stdout unless quiet or the JSON goes there; the JSON where it was asked for.
void print_answer(const CommonOptions& options, const std::string& text, const std::string& json);
bool stdout_is_terminal();

}  // namespace dssim
