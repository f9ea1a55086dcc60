// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>

#include "sim/base/error.hpp"
#include "sim/cli/commands.hpp"
#include "sim/cli/options.hpp"
#include "sim/report/catalogue_text.hpp"
#include "sim/report/console.hpp"
#include "sim/report/json.hpp"
#include "sim/report/validation_text.hpp"
#include "sim/study/deployment_setup.hpp"
#include "sim/study/serving_run.hpp"
#include "sim/study/validate.hpp"

namespace dssim {

int run_step(const Words& words) {
  constexpr int64_t kMostTokens = 1 << 24, kMostSequences = 1 << 20, kMostPrompts = 1 << 16;
  CommonOptions options;
  auto description = common_description(options);
  auto add = description.add_options();
  add("decode", po::value<std::string>()->value_name("B"), "sequences that decode one token each");
  add("kv", po::value<std::string>()->value_name("L"), "KV tokens of each of them, the new one included");
  add("prefill", po::value<std::string>()->value_name("T"), "tokens of a prompt to process");
  add("past", po::value<std::string>()->value_name("P"), "its tokens that are in the KV cache already");
  add("prompts", po::value<std::string>()->value_name("N"), "so many such prompts (default 1)");
  po::variables_map values;
  if (!parse(words, description, options, values,
             "dssim step SCENARIO.toml (--decode B --kv L | --prefill T [--past P])"))
    return 0;

  const auto count = [&](const char* name, int64_t least, int64_t most, int64_t fallback) {
    return values.contains(name) ? parse_count(std::string("--") + name, values[name].as<std::string>(), least, most)
                                 : fallback;
  };
  StepQuery query;
  query.decode_sequences = count("decode", 1, kMostSequences, 0);
  query.decode_kv_tokens = count("kv", 1, kMostTokens, 0);
  query.prefill_tokens = count("prefill", 1, kMostTokens, 0);
  query.past_tokens = count("past", 0, kMostTokens, 0);
  query.prompts = count("prompts", 1, kMostPrompts, query.prefill_tokens > 0 ? 1 : 0);
  if (query.decode_sequences == 0 && query.prefill_tokens == 0)
    throw bad_input("step: say which step: --decode B --kv L, or --prefill T [--past P], or both");
  if ((query.decode_sequences > 0) != (query.decode_kv_tokens > 0))
    throw bad_input("step: --decode B and --kv L go together");
  if (query.prefill_tokens == 0 && (query.prompts > 0 || values.contains("past")))
    throw bad_input("step: --past and --prompts belong to --prefill T");

  const StepReport report = query_step(options.read(), query);
  print_answer(options, console_text(report, stdout_is_terminal()), json_text(report));
  return 0;
}

int run_fit(const Words& words) {
  CommonOptions options;
  const auto description = common_description(options);
  po::variables_map values;
  if (!parse(words, description, options, values, "dssim fit SCENARIO.toml [options]")) return 0;
  const FitReport report = query_fit(options.read());
  print_answer(options, console_text(report, stdout_is_terminal()), json_text(report));
  require_fit(report);
  return 0;
}

int run_validate(const Words& words) {
  CommonOptions options;
  auto description = common_description(options);
  auto add = description.add_options();
  add("requests", po::value<std::string>()->value_name("FILE"),
      "measured requests, CSV with the columns arrival, input, output, first_token, done");
  add("iterations", po::value<std::string>()->value_name("FILE"),
      "measured iterations, CSV with the columns seconds, decode_seqs, prefill_tokens, decode_kv_tokens, "
      "prefill_kv_tokens; start, prefill_seqs and decode_longest_kv where they are there");
  po::variables_map values;
  if (!parse(words, description, options, values, "dssim validate SCENARIO.toml [--requests FILE] [--iterations FILE]"))
    return 0;
  const auto file = [&](const char* name) {
    return values.contains(name) ? std::optional<std::filesystem::path>(values[name].as<std::string>()) : std::nullopt;
  };
  Scenario scenario = options.read();
  const ValidationReport report = validate(scenario, file("requests"), file("iterations"));
  print_answer(options, console_text(report, stdout_is_terminal()), json_text(report));
  return 0;
}

int run_catalogue(const Words& words) {
  const std::string usage = fmt::format("usage: dssim catalogue [{}] [NAME]", fmt::join(catalogue_sections(), "|"));
  const auto is_option = [](const std::string& word) { return word.starts_with("-"); };
  if (!words.empty() && (words.back() == "--help" || words.back() == "-h")) {
    fmt::print("{}\n", usage);
    return 0;
  }
  if (words.size() > 2 || std::any_of(words.begin(), words.end(), is_option)) throw bad_input(usage);
  if (words.empty())
    fmt::print("{}", catalogue_overview());
  else if (words.size() == 1)
    fmt::print("{}", catalogue_list(words[0]));
  else
    fmt::print("{}", catalogue_entry(words[0], words[1]));
  return 0;
}

}  // namespace dssim
