// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>

#include "sim/network/collective.hpp"
#include "sim/network/collective_algorithm.hpp"

namespace dssim {
namespace {

constexpr std::array<std::string_view, 6> kNames{"all_reduce", "all_gather", "reduce_scatter",
                                                 "all_to_all", "broadcast",  "send_recv"};

}  // namespace

std::string_view name_of(CollectiveKind kind) {
  return kNames[static_cast<size_t>(kind)];
}

std::vector<std::string> collective_names() {
  return {kNames.begin(), kNames.end()};
}

double bus_bandwidth_factor(CollectiveKind kind, int gpus) {
  if (gpus < 2) return 0;
  const double n = gpus;
  switch (kind) {
    case CollectiveKind::all_reduce:
      return 2 * (n - 1) / n;
    case CollectiveKind::all_gather:
    case CollectiveKind::reduce_scatter:
    case CollectiveKind::all_to_all:
      return (n - 1) / n;
    case CollectiveKind::broadcast:
    case CollectiveKind::send_recv:
      return 1;
  }
  return 1;
}

CollectiveOptions read_collective_options(const Config& table) {
  CollectiveOptions options;
  options.tables = table.boolean("tables", true);
  const std::array<std::string, 2> launches{"queued", "eager"};
  options.eager = table.choice("launch", launches, "queued") == "eager";
  options.nvls = table.boolean("nvls", true);
  options.sharp = table.boolean("sharp", false);
  std::vector<std::string> names{"auto"};
  for (const CollectiveAlgorithm* algorithm : collective_algorithms())
    if (std::find(names.begin(), names.end(), algorithm->name()) == names.end()) names.emplace_back(algorithm->name());
  const std::string algorithm = table.choice("algorithm", names, "auto");
  if (algorithm != "auto") options.algorithm = algorithm;
  return options;
}

}  // namespace dssim
