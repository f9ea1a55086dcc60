// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <charconv>
#include <filesystem>

#include "sim/base/error.hpp"
#include "sim/base/files.hpp"
#include "sim/base/progress.hpp"
#include "sim/cli/commands.hpp"
#include "sim/cli/options.hpp"
#include "sim/report/training_json.hpp"
#include "sim/report/training_text.hpp"
#include "sim/study/parallelise.hpp"
#include "sim/study/training_run.hpp"

namespace dssim {
namespace {

constexpr int64_t kMostGpus = 1 << 20;

std::vector<int> parse_gpu_counts(const std::string& text) {
  std::vector<int> counts;
  size_t begin = 0;
  while (begin <= text.size()) {
    const size_t end = std::min(text.find(',', begin), text.size());
    counts.push_back(static_cast<int>(parse_count("--scale", text.substr(begin, end - begin), 1, kMostGpus)));
    begin = end + 1;
  }
  return counts;
}

void write_folder(const std::string& folder, const std::string& text, const std::string& json) {
  std::error_code code;
  std::filesystem::create_directories(folder, code);
  if (code || !std::filesystem::is_directory(folder))
    throw bad_input("--out " + folder + ": is not a folder and cannot be made one");
  for (const auto& [name, content] : {std::pair{"report.txt", &text}, std::pair{"report.json", &json}}) {
    AtomicFile file(std::filesystem::path(folder) / name);
    file.write(*content);
    file.commit();
  }
}

TrainingReport train(const TrainingScenario& scenario, const CommonOptions& options) {
  TrainingReport partial;
  try {
    return run_training(scenario, &partial);
  } catch (const Error& e) {
    // A job that does not fit still has an answer for programs that asked for one.
    if (e.kind() == ErrorKind::cannot_run && options.json) {
      CommonOptions quiet = options;
      quiet.quiet = true;
      print_answer(quiet, "", json_text(partial));
    }
    throw;
  }
}

}  // namespace

bool names_training_scenario(const Words& words) {
  // The first word that is neither an option nor an option's value.
  for (size_t i = 0; i < words.size(); ++i) {
    const bool flag = words[i] == "--quiet" || words[i] == "--help" || words[i].find('=') != std::string::npos;
    if (words[i].starts_with("--") && !flag) {
      ++i;
      continue;
    }
    if (words[i].starts_with("-")) continue;
    try {
      return is_training_scenario(words[i], {});
    } catch (const Error&) {
      return false;  // the reader of scenarios says what is wrong with the file
    }
  }
  return false;
}

int run_training_scenario(const Words& words) {
  CommonOptions options;
  auto description = common_description(options);
  auto add = description.add_options();
  add("scale", po::value<std::string>()->value_name("N,N,…"),
      "the same job on so many GPUs: weak and strong scaling, and what it loses");
  add("out", po::value<std::string>()->value_name("DIR"), "write report.txt and report.json into a folder");
  po::variables_map values;
  if (!parse(words, description, options, values, "dssim SCENARIO.toml [--scale N,N,…] [options]")) return 0;
  const TrainingScenario scenario = read_training_scenario(options.scenario, options.assignments, options.seed);
  const auto answer = [&](const auto& report) {
    const std::string json = json_text(report);
    if (values.contains("out")) write_folder(values["out"].as<std::string>(), console_text(report, false), json);
    print_answer(options, console_text(report, stdout_is_terminal()), json);
    return 0;
  };
  if (values.contains("scale"))
    return answer(run_training_scale(scenario, parse_gpu_counts(values["scale"].as<std::string>())));
  return answer(train(scenario, options));
}

int run_training_fit(const Words& words) {
  CommonOptions options;
  const auto description = common_description(options);
  po::variables_map values;
  if (!parse(words, description, options, values, "dssim fit SCENARIO.toml [options]")) return 0;
  const TrainingReport report =
      query_training_fit(read_training_scenario(options.scenario, options.assignments, options.seed));
  print_answer(options, fit_text(report, stdout_is_terminal()), fit_json_text(report));
  require_training_fit(report);
  return 0;
}

int run_parallelise(const Words& words) {
  CommonOptions options;
  auto description = common_description(options);
  auto add = description.add_options();
  add("top", po::value<std::string>()->value_name("N")->default_value("20"),
      "so many layouts that run, and as many that do not");
  po::variables_map values;
  if (!parse(words, description, options, values, "dssim parallelise SCENARIO.toml [--top N] [options]")) return 0;
  SearchOptions search;
  search.show = search.show_infeasible =
      static_cast<size_t>(parse_count("--top", values["top"].as<std::string>(), 1, 1'000'000));
  search.progress = !options.quiet && Progress::stderr_is_terminal();
  if (!is_training_scenario(options.scenario, options.assignments))
    throw bad_input(
        fmt::format("{}: has no [training]; parallelise ranks the layouts of a training job", options.scenario));
  const TrainingScenario scenario = read_training_scenario(options.scenario, options.assignments, options.seed, false);
  const SearchReport report = find_layouts(scenario, search);
  print_answer(options, console_text(report, stdout_is_terminal()), json_text(report));
  return 0;
}

}  // namespace dssim
