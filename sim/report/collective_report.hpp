// SPDX-License-Identifier: Apache-2.0
#pragma once

// The answer of `dssim collective`: one row for each message size, as nccl-tests prints it. SI units; GB/s are 1e9.

#include <string>
#include <vector>

#include "sim/network/collective.hpp"

namespace dssim {

struct CollectiveRow {
  double bytes = 0;
  CollectiveTime time;
  double algorithm_bytes_per_s = 0;  // bytes / seconds
  double bus_bytes_per_s = 0;        // × bus_bandwidth_factor: comparable between operations and group sizes
  double simulated_s = 0;            // as flows of a simulation; 0 where not asked for
};

struct CollectiveReport {
  std::string scenario, title, hardware, group;
  CollectiveKind kind = CollectiveKind::all_reduce;
  int gpus = 0, nodes = 0;
  bool eager = false;
  std::vector<CollectiveRow> rows;
  uint64_t flows = 0;  // simulated
  std::vector<std::string> sources;
};

std::string console_text(const CollectiveReport& report, bool colour);
std::string json_text(const CollectiveReport& report);

}  // namespace dssim
