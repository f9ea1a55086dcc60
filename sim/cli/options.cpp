// SPDX-License-Identifier: Apache-2.0
#include "sim/cli/options.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <sstream>

#include "sim/base/error.hpp"
#include "sim/base/files.hpp"
#include "sim/study/training_scenario.hpp"

namespace dssim {

Scenario CommonOptions::read() const {
  if (is_training_scenario(scenario, {}))
    throw bad_input(fmt::format("{}: has [training]; this command asks about [serving]", scenario));
  return read_scenario(scenario, assignments, seed);
}

po::options_description common_description(CommonOptions& options) {
  po::options_description description("Options");
  auto add = description.add_options();
  add("set", po::value(&options.assignments)->value_name("KEY=VALUE")->composing(),
      "replace or add a key of the scenario, e.g. --set cluster.gpus=4; may be repeated");
  add("seed", po::value<std::string>()->value_name("N"), "seed of every random stream, in place of the scenario's");
  add("json", po::value<std::string>()->value_name("FILE|-"), "write the answer as JSON to a file, or to stdout");
  add("quiet", po::bool_switch(&options.quiet), "print nothing on stdout but what --json - asks for");
  add("help,h", "print this");
  return description;
}

bool parse(const std::vector<std::string>& words, const po::options_description& description, CommonOptions& options,
           po::variables_map& values, std::string_view usage) {
  po::options_description all;
  all.add(description);
  all.add_options()("scenario", po::value<std::vector<std::string>>());
  po::positional_options_description positional;
  positional.add("scenario", -1);
  try {
    po::store(po::command_line_parser(words)
                  .options(all)
                  .positional(positional)
                  .style(po::command_line_style::unix_style & ~po::command_line_style::allow_guessing)
                  .run(),
              values);
    if (values.contains("help")) {
      std::ostringstream text;
      text << description;
      fmt::print("usage: {}\n\n{}", usage, text.str());
      return false;
    }
    po::notify(values);
  } catch (const po::error& e) {
    throw bad_input(fmt::format("{}; see dssim --help", e.what()));
  }
  const auto scenarios =
      values.contains("scenario") ? values["scenario"].as<std::vector<std::string>>() : std::vector<std::string>();
  if (scenarios.size() != 1)
    throw bad_input(scenarios.empty() ? fmt::format("a scenario file is missing; usage: {}", usage)
                                      : fmt::format("one scenario file at a time, not '{}' as well", scenarios[1]));
  options.scenario = scenarios[0];
  if (values.contains("seed"))
    options.seed = static_cast<uint64_t>(parse_count("--seed", values["seed"].as<std::string>(), 0, INT64_MAX));
  if (values.contains("json")) {
    options.json = values["json"].as<std::string>();
    if (options.json != "-") require_writable(*options.json);
  }
  return true;
}

int64_t parse_count(const std::string& option, const std::string& text, int64_t least, int64_t most) {
  int64_t value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc() || end != text.data() + text.size() || value < least || value > most)
    throw bad_input(fmt::format("{} {}: must be a whole number from {} to {}", option, text, least, most));
  return value;
}

bool stdout_is_terminal() {
  return isatty(STDOUT_FILENO) == 1;
}

void print_answer(const CommonOptions& options, const std::string& text, const std::string& json) {
  const bool json_on_stdout = options.json == "-";
  if (options.json && !json_on_stdout) {
    AtomicFile file(*options.json);
    file.write(json);
    file.commit();
  }
  if (json_on_stdout)
    fmt::print("{}", json);
  else if (!options.quiet)
    fmt::print("{}", text);
}

}  // namespace dssim
