// SPDX-License-Identifier: Apache-2.0
#pragma once

// A scenario with a [training] table, read and checked: [cluster], [model], [network] and [training]. docs/training.md
// lists the keys. Errors: Error(bad_input), one line with file:line: key.

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "platforms/cluster.hpp"
#include "sim/base/config.hpp"
#include "sim/network/collective.hpp"
#include "sim/training/training_job.hpp"

namespace dssim {

struct TrainingScenario {
  std::string path, title;
  uint64_t seed = 42;
  Cluster cluster;
  std::string stack;  // empty: the best there is for the GPU
  CollectiveOptions network;
  TrainingJob job;
  std::string weights;  // format of [model]
};

// Whether the file has a [training] table. Errors of the file itself are left to the reader that follows.
bool is_training_scenario(const std::filesystem::path& path, std::span<const std::string> assignments);

// `fixed_layout` false: degrees, sharding, recomputation and batches of the file are only the starting point of a
// search, so they need not fit one another.
TrainingScenario read_training_scenario(const std::filesystem::path& path,
                                        std::span<const std::string> assignments = {},
                                        std::optional<uint64_t> seed = std::nullopt, bool fixed_layout = true);

// The same from a document in hand.
TrainingScenario read_training_scenario(const Config& file, std::optional<uint64_t> seed = std::nullopt,
                                        bool fixed_layout = true);

// Why tensor groups cannot be placed on these nodes, or "".
std::string placement_problem(const TrainingJob& job, const Cluster& cluster);

}  // namespace dssim
