// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <filesystem>

#include "sim/base/error.hpp"
#include "sim/base/names.hpp"
#include "sim/cli/commands.hpp"

namespace dssim {
namespace {

constexpr std::string_view kUsage = R"(dssim: what will these GPUs, links and disks give for this model and this load?

  dssim SCENARIO.toml [--set KEY=VALUE]... [--seed N] [--json FILE|-]
        [--requests FILE] [--out DIR] [--quiet]
      simulate it: QPS, TTFT, TPOT, latency, memory fit, bottleneck, trust;
      with [training]: step time, tokens/s, MFU, where the step goes
  dssim step SCENARIO.toml (--decode B --kv L | --prefill T [--past P])
      how long one engine iteration takes, operator by operator
  dssim fit SCENARIO.toml
      memory only: does it fit, how many KV tokens are left, what would fit
  dssim collective SCENARIO.toml --op all_reduce --bytes 1MiB..4GiB [--gpus N]
      time and bus bandwidth of a collective, size by size
  dssim SCENARIO.toml --scale N,N,...
      a training job on so many GPUs: weak and strong scaling, and what it loses
  dssim parallelise SCENARIO.toml [--top N]
      every layout of a training job on these GPUs, by predicted step time
  dssim validate SCENARIO.toml [--requests FILE] [--iterations FILE]
      hold the prediction against a measured run
  dssim catalogue [gpus|nodes|fabrics|nics|cpus|storage|models|traces|stacks]
        [NAME]
      what can be named in a scenario, every figure with its source

Each command has --help. Exit status: 0 done, 2 bad input, 3 the configuration
cannot run (with what would make it run), 1 anything else.
)";

}  // namespace

int run_command(const Words& words) {
  if (words.empty()) throw bad_input("a scenario file or a command is missing; see dssim --help");
  const Words rest(words.begin() + 1, words.end());
  const std::string& command = words[0];
  if (command == "--help" || command == "-h" || command == "help") {
    fmt::print("{}", kUsage);
    return 0;
  }
  if (command == "--version") {
    fmt::print("dssim {}\n", DSSIM_VERSION);
    return 0;
  }
  if (command == "step") return run_step(rest);
  if (command == "fit") return names_training_scenario(rest) ? run_training_fit(rest) : run_fit(rest);
  if (command == "parallelise") return run_parallelise(rest);
  if (command == "collective") return run_collective(rest);
  if (command == "validate") return run_validate(rest);
  if (command == "catalogue") return run_catalogue(rest);
  // A word without a dot that is no file is a mistyped command rather than a scenario.
  const std::vector<std::string> commands{"step", "fit", "collective", "parallelise", "validate", "catalogue"};
  if (!command.starts_with("-") && command.find('.') == std::string::npos && !std::filesystem::exists(command))
    throw bad_input(unknown_name("command", command, commands) + " (nor is there a scenario file of that name)");
  return names_training_scenario(words) ? run_training_scenario(words) : run_scenario(words);
}

}  // namespace dssim
