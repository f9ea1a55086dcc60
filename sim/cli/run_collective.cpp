// SPDX-License-Identifier: Apache-2.0
#include "sim/base/error.hpp"
#include "sim/cli/commands.hpp"
#include "sim/cli/options.hpp"
#include "sim/study/collective_run.hpp"

namespace dssim {

int run_collective(const Words& words) {
  CommonOptions options;
  auto description = common_description(options);
  auto add = description.add_options();
  add("op", po::value<std::string>()->value_name("NAME")->default_value("all_reduce"),
      "all_reduce, all_gather, reduce_scatter, all_to_all, broadcast or send_recv");
  add("bytes", po::value<std::string>()->value_name("SIZES")->default_value("1KiB..4GiB"),
      "sizes as nccl-tests counts them: 4MiB, 1MiB..4GiB (doubling), 1MiB..4GiB*4, or several with commas");
  add("gpus", po::value<std::string>()->value_name("N"), "the first N GPUs of the cluster (default: all)");
  add("stride", po::value<std::string>()->value_name("S"), "only every S-th GPU, e.g. one of each node (default 1)");
  CollectiveQuery query;
  add("simulate", po::bool_switch(&query.simulate), "send each size through the simulated network as well");
  po::variables_map values;
  if (!parse(words, description, options, values, "dssim collective SCENARIO.toml --op NAME --bytes SIZES [--gpus N]"))
    return 0;
  query.kind = parse_collective(values["op"].as<std::string>());
  query.bytes = parse_sizes(values["bytes"].as<std::string>());
  constexpr int64_t kMost = 1 << 30;
  if (values.contains("gpus"))
    query.gpus = static_cast<int>(parse_count("--gpus", values["gpus"].as<std::string>(), 2, kMost));
  if (values.contains("stride"))
    query.stride = static_cast<int>(parse_count("--stride", values["stride"].as<std::string>(), 1, kMost));
  const CollectiveReport report = run_collectives(options.scenario, options.assignments, query);
  print_answer(options, console_text(report, stdout_is_terminal()), json_text(report));
  return 0;
}

}  // namespace dssim
