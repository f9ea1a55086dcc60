// SPDX-License-Identifier: Apache-2.0
#include "sim/study/scenario.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "sim/base/files.hpp"
#include "sim/base/names.hpp"
#include "sim/serving/placement.hpp"
#include "sim/serving/policy.hpp"
#include "sim/serving/router.hpp"

namespace dssim {
namespace {

constexpr int64_t kMany = 1'000'000'000;

void check_degrees(const Config& serving, const Scenario& scenario) {
  const Deployment& d = scenario.deployment;
  if (const auto problem =
          parallel_problem(scenario.model.architecture, d.tensor_parallel, d.pipeline_parallel, d.expert_parallel))
    throw serving.error(problem.key, problem.message);
  const Cluster& cluster = scenario.cluster;
  const auto needed = d.gpus();
  if (needed > cluster.gpus)
    throw serving.error(
        d.tensor_parallel > cluster.gpus ? "tensor_parallel" : "pipeline_parallel",
        fmt::format("one replica needs tensor_parallel × pipeline_parallel = {} GPUs, but the cluster has {}", needed,
                    cluster.gpus));
  const int per_node = cluster.gpus_per_node();
  if (max_replicas(cluster.gpus, per_node, static_cast<int>(d.tensor_parallel),
                   static_cast<int>(d.pipeline_parallel)) == 0)
    throw serving.error("tensor_parallel",
                        fmt::format("groups of {} GPUs cannot be placed on nodes of {}: take a degree up to "
                                    "{}, or a multiple of it",
                                    d.tensor_parallel, per_node, per_node));
}

// Layers of each pipeline stage, where the scenario says so itself. Stages of unlike length have to be asked for: where
// the degree does not divide the layers the slowest stage sets the pace, which nobody wants unawares.
std::vector<int64_t> read_partition(const Config& serving, const Scenario& scenario) {
  if (!serving.has("pipeline_partition")) {
    serving.find_text("pipeline_partition");  // makes the key known, so that a misspelt one is named beside it
    const Architecture& m = scenario.model.architecture;
    const int64_t stages = scenario.deployment.pipeline_parallel;
    if (m.layers % stages != 0)
      throw serving.error("pipeline_parallel",
                          fmt::format("{} does not divide the {} layers of {}; vLLM would deal them out as "
                                      "pipeline_partition = [{}]",
                                      stages, m.layers, m.title, fmt::join(layers_by_stage(m.layers, stages), ", ")));
    return {};
  }
  const std::vector<int64_t> layers = serving.integers("pipeline_partition", {1, kMany});
  const auto stages = static_cast<size_t>(scenario.deployment.pipeline_parallel);
  if (layers.size() != stages)
    throw serving.error("pipeline_partition", fmt::format("names {} stages, but pipeline_parallel = {}", layers.size(),
                                                          scenario.deployment.pipeline_parallel));
  const int64_t sum = std::accumulate(layers.begin(), layers.end(), int64_t{0});
  if (const Architecture& m = scenario.model.architecture; sum != m.layers)
    throw serving.error("pipeline_partition",
                        fmt::format("has {} layers in all, but {} has {}", sum, m.title, m.layers));
  return layers;
}

int read_replicas(const Config& serving, const Scenario& scenario) {
  const Deployment& d = scenario.deployment;
  const int most = max_replicas(scenario.cluster.gpus, scenario.cluster.gpus_per_node(),
                                static_cast<int>(d.tensor_parallel), static_cast<int>(d.pipeline_parallel));
  if (serving.kind("replicas") == Config::Kind::text) {
    if (serving.text("replicas") != "max") throw serving.error("replicas", "must be a number or \"max\"");
    return most;
  }
  const auto replicas = serving.integer("replicas", {1, kMany}, 1);
  if (replicas > most)
    throw serving.error("replicas",
                        fmt::format("{} replicas of {} GPUs need {}, but the cluster has room for {} on its {} GPUs",
                                    replicas, d.gpus(), replicas * d.gpus(), most, scenario.cluster.gpus));
  return static_cast<int>(replicas);
}

// The stacks that some GPU has tables of. Folder names alone: what is in them is read when the cost model is made.
std::vector<std::string> stack_names() {
  std::set<std::string> names;
  const auto root = data_root() / "kernels" / "profiles";
  for (const auto& gpu : names_in(root, ""))
    for (const auto& stack : names_in(root / gpu, ""))
      if (std::filesystem::exists(root / gpu / stack / "stack.toml")) names.insert(stack);
  return {names.begin(), names.end()};
}

// Whether a given KV capacity holds the shortest context that has to fit; no other change of the deployment helps there.
void check_kv_tokens(const Config& serving, const Deployment& d, bool is_encoder) {
  if (!d.kv_tokens || is_encoder) return;
  if (*d.kv_tokens < d.kv_block_tokens)
    throw serving.error("kv_tokens",
                        fmt::format("{} is less than one block of {} tokens", *d.kv_tokens, d.kv_block_tokens));
  if (*d.kv_tokens / d.kv_block_tokens * d.kv_block_tokens < d.context_tokens)
    throw serving.error("kv_tokens", fmt::format("{} do not hold one request of {} tokens; give more, or a smaller "
                                                 "max_model_tokens",
                                                 *d.kv_tokens, d.context_tokens));
}

void read_serving(const Config& serving, Scenario& scenario) {
  Deployment& d = scenario.deployment;
  ServingOptions& options = scenario.serving;
  d.weights = scenario.model.weights;
  d.kv_cache = scenario.model.kv_cache;
  options.stack = serving.choice("stack", stack_names(), "");
  d.tensor_parallel = serving.integer("tensor_parallel", {1, 1 << 20}, 1);
  d.pipeline_parallel = serving.integer("pipeline_parallel", {1, 1 << 20}, 1);
  d.expert_parallel = serving.integer("expert_parallel", {1, 1 << 20}, 1);
  check_degrees(serving, scenario);
  d.pipeline_partition = read_partition(serving, scenario);
  options.replicas = read_replicas(serving, scenario);
  options.policy = serving.choice("policy", policy_names(), "chunked-prefill");
  options.router = serving.choice("router", router_names(), "least-loaded");
  d.max_batched_tokens = serving.integer("max_batched_tokens", {1, 1 << 24}, 2048);
  d.max_sequences = serving.integer("max_sequences", {1, 1 << 20}, 256);
  if (d.max_sequences > d.max_batched_tokens)
    throw serving.error("max_batched_tokens",
                        fmt::format("{} is less than max_sequences = {}: every running sequence needs a "
                                    "token of the budget",
                                    d.max_batched_tokens, d.max_sequences));
  d.kv_block_tokens = serving.integer("kv_block_tokens", {1, 65536}, 16);
  d.gpu_memory_fraction = serving.number("gpu_memory_fraction", {0.01, 1.0}, 0.9);
  d.kv_tokens = serving.find_integer("kv_tokens", {1, int64_t{1} << 40});
  options.prefix_cache = serving.boolean("prefix_cache", false);
  options.max_model_tokens = serving.find_integer("max_model_tokens", {2, kMany});
  if (options.max_model_tokens) options.limits.max_request_tokens = *options.max_model_tokens;
  options.limits.max_batched_tokens = d.max_batched_tokens;
  options.limits.max_sequences = d.max_sequences;
  options.limits.max_waiting = serving.find_integer("max_queue", {0, kMany}).value_or(options.limits.max_waiting);
  options.limits.batches = static_cast<int>(d.pipeline_parallel);
  // What has to fit at least: one sequence of a length that any service meets.
  constexpr int64_t kUsualContext = 2048;
  d.context_tokens =
      options.max_model_tokens.value_or(std::min(scenario.model.architecture.max_positions, kUsualContext));
  check_kv_tokens(serving, d, scenario.model.architecture.is_encoder());
}

ServiceObjective read_objective(const Config& slo) {
  ServiceObjective objective;
  objective.ttft_p99_s = slo.find_quantity("ttft_p99", Dimension::time);
  objective.tpot_p99_s = slo.find_quantity("tpot_p99", Dimension::time);
  objective.e2e_p99_s = slo.find_quantity("e2e_p99", Dimension::time);
  return objective;
}

}  // namespace

Scenario read_scenario(const std::filesystem::path& path, std::span<const std::string> assignments,
                       std::optional<uint64_t> seed) {
  return read_scenario(Config::load(path.string(), assignments), seed);
}

Scenario read_scenario(const Config& file, std::optional<uint64_t> seed) {
  const std::filesystem::path path = file.file();
  Scenario scenario;
  scenario.path = path.string();
  scenario.title = file.text("title", path.stem().string());
  scenario.seed = static_cast<uint64_t>(file.integer("seed", {0, std::numeric_limits<int64_t>::max()}, 42));
  if (seed) scenario.seed = *seed;
  const auto folder = path.parent_path();
  scenario.cluster = read_cluster(file.table("cluster"));
  scenario.model = read_model(file.table("model"), folder);
  read_serving(file.find_table("serving").value_or(Config::parse("", path.string())), scenario);
  if (const auto slo = file.find_table("slo")) scenario.objective = read_objective(*slo);
  if (const auto workload = file.find_table("workload")) {
    if (const auto timeout = workload->find_quantity("timeout", Dimension::time)) {
      if (*timeout <= 0) throw workload->error("timeout", "must be more than zero");
      scenario.serving.limits.client_timeout_s = *timeout;
    }
    scenario.requests = make_request_stream(*workload, scenario.seed, folder);
  }
  file.finish();
  return scenario;
}

}  // namespace dssim
