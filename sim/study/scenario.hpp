// SPDX-License-Identifier: Apache-2.0
#pragma once

// A scenario file, read and checked: names resolved to catalogue entries, units to SI, degrees against model and
// cluster. Every key is documented in docs/scenario.md; a test holds that page and this reader together. Errors:
// Error(bad_input), one line with file:line: key.

#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "platforms/cluster.hpp"
#include "sim/base/config.hpp"
#include "sim/results/serving_summary.hpp"
#include "sim/serving/scheduler.hpp"
#include "workloads/architecture.hpp"
#include "workloads/memory_plan.hpp"
#include "workloads/request_stream.hpp"

namespace dssim {

struct ServingOptions {
  std::string stack;  // empty: the best there is for the GPU
  int replicas = 1;
  std::string policy, router;
  bool prefix_cache = false;
  std::optional<int64_t> max_model_tokens;  // longer requests are refused
  SchedulerLimits limits;
};

struct Scenario {
  std::string path, title;
  uint64_t seed = 42;
  Cluster cluster;
  ModelChoice model;
  Deployment deployment;
  ServingOptions serving;
  ServiceObjective objective;
  std::unique_ptr<RequestStream> requests;  // null where there is no [workload]
};

// `assignments` are the --set options; `seed` replaces the file's.
Scenario read_scenario(const std::filesystem::path& path, std::span<const std::string> assignments = {},
                       std::optional<uint64_t> seed = std::nullopt);
// The same from a document in hand.
Scenario read_scenario(const Config& file, std::optional<uint64_t> seed = std::nullopt);

}  // namespace dssim
