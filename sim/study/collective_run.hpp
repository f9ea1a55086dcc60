// SPDX-License-Identifier: Apache-2.0
#pragma once

// `dssim collective`: times of one collective over a range of sizes on the cluster of a scenario. Only [cluster] is
// needed; [network] may choose algorithm and launch, and the stack of [training] or [serving] names the measured
// tables.

#include <span>
#include <string>
#include <vector>

#include "sim/report/collective_report.hpp"

namespace dssim {

struct CollectiveQuery {
  CollectiveKind kind = CollectiveKind::all_reduce;
  std::vector<double> bytes;
  int gpus = 0;           // 0: all of the cluster
  int stride = 1;         // 8: one GPU of every node of 8
  bool simulate = false;  // each size also as flows of a simulation
};

// "4MiB", "1MiB..4GiB" (doubling), "1MiB..4GiB*4", or several of these separated by commas. Error(bad_input) otherwise.
std::vector<double> parse_sizes(const std::string& text);
CollectiveKind parse_collective(const std::string& name);

CollectiveReport run_collectives(const std::string& scenario, std::span<const std::string> assignments,
                                 const CollectiveQuery& query);

}  // namespace dssim
