// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <csignal>
#include <ctime>
#include <filesystem>

#include "sim/base/error.hpp"
#include "sim/base/files.hpp"
#include "sim/base/progress.hpp"
#include "sim/cli/commands.hpp"
#include "sim/cli/options.hpp"
#include "sim/engine/simulation.hpp"
#include "sim/report/console.hpp"
#include "sim/report/json.hpp"
#include "sim/study/serving_run.hpp"

namespace dssim {
namespace {

// The first Ctrl-C ends the run with the answer so far, a later one the program. Signals that come together count as one:
// timeout(1) signals the process and then its group. (time() is safe in a signal handler.)
extern "C" void stop_on_signal(int signal) {
  static volatile std::time_t first = 0;
  const std::time_t now = std::time(nullptr);
  if (!stop_requested()) first = now;
  request_stop();
  if (now - first < 2) return;
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

void write_file(const std::filesystem::path& path, const std::string& text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

}  // namespace

int run_scenario(const Words& words) {
  CommonOptions options;
  auto description = common_description(options);
  auto add = description.add_options();
  add("requests", po::value<std::string>()->value_name("FILE"), "write one CSV line per request");
  add("out", po::value<std::string>()->value_name("DIR"),
      "write report.txt, report.json and requests.csv into a folder");
  add("scale", po::value<std::string>()->value_name("N,N,…"), "of training jobs, see dssim --help");
  po::variables_map values;
  if (!parse(words, description, options, values, "dssim SCENARIO.toml [options]")) return 0;

  Scenario scenario = options.read();
  if (values.contains("scale"))
    throw bad_input(
        fmt::format("--scale: gives the weak and strong scaling tables of a training job, and {} has no [training]; a "
                    "service grows by cluster.nodes and serving.replicas, e.g. --set serving.replicas=max",
                    options.scenario));
  RunOptions run;
  run.progress = !options.quiet && Progress::stderr_is_terminal();
  std::optional<std::filesystem::path> out;
  if (values.contains("out")) {
    out = values["out"].as<std::string>();
    std::error_code code;
    std::filesystem::create_directories(*out, code);
    if (code || !std::filesystem::is_directory(*out))
      throw bad_input("--out " + out->string() + ": is not a folder and cannot be made one");
    run.requests_csv = *out / "requests.csv";
  }
  if (values.contains("requests")) {
    if (out) throw bad_input("--requests: --out writes requests.csv into its folder already; give one of the two");
    run.requests_csv = values["requests"].as<std::string>();
    if (run.requests_csv == "-") throw bad_input("--requests -: only --json goes to standard output; give a file");
    require_writable(*run.requests_csv);
  }

  std::signal(SIGINT, stop_on_signal);
  std::signal(SIGTERM, stop_on_signal);
  ServingReport report;
  try {
    report = run_serving(scenario, run);
  } catch (const Error& e) {
    // A configuration that does not fit still has an answer for programs that asked for one.
    if (e.kind() == ErrorKind::cannot_run && options.json) {
      CommonOptions quiet = options;
      quiet.quiet = true;
      print_answer(quiet, "", json_text(query_fit(scenario)));
    }
    throw;
  }
  if (out) {
    write_file(*out / "report.txt", console_text(report, false));
    write_file(*out / "report.json", json_text(report));
  }
  print_answer(options, console_text(report, stdout_is_terminal()), json_text(report));
  return 0;
}

}  // namespace dssim
