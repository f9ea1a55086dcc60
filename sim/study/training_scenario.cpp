// SPDX-License-Identifier: Apache-2.0
#include "sim/study/training_scenario.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "sim/training/schedule.hpp"
#include "sim/training/training_stack.hpp"
#include "workloads/architecture.hpp"

namespace dssim {
namespace {

constexpr Range<int64_t> kDegree{1, 1 << 20}, kStages{1, 1024}, kSequences{1, 1 << 30}, kTokens{1, 1 << 28};

template <typename Enum, size_t n>
Enum read_enum(const Config& table, std::string_view key, const std::string_view (&names)[n], Enum fallback) {
  const std::vector<std::string> words(std::begin(names), std::end(names));
  const auto name = table.choice(key, words, words[static_cast<size_t>(fallback)]);
  return static_cast<Enum>(std::find(words.begin(), words.end(), name) - words.begin());
}

Precision read_precision(const Config& table, std::string_view key, const std::vector<std::string>& allowed,
                         Precision fallback) {
  const auto name = table.choice(key, allowed, name_of(fallback));
  const auto names = precision_names();
  return static_cast<Precision>(std::find(names.begin(), names.end(), name) - names.begin());
}

int degree(const Config& table, std::string_view key) {
  return static_cast<int>(table.integer(key, kDegree, 1));
}

void read_degrees(const Config& t, const Cluster& cluster, bool fixed_layout, TrainingJob& job) {
  job.tensor_parallel = degree(t, "tensor_parallel");
  job.pipeline_parallel = static_cast<int>(t.integer("pipeline_parallel", kStages, 1));
  job.context_parallel = degree(t, "context_parallel");
  job.expert_parallel = degree(t, "expert_parallel");
  const auto given = t.find_integer("data_parallel", kDegree);
  const double replica = static_cast<double>(job.tensor_parallel) * job.pipeline_parallel * job.context_parallel;
  if (!fixed_layout) return;
  if (const auto problem = parallel_problem(job.model, job.tensor_parallel, 1, 1))
    throw t.error(problem.key, problem.message);
  if (replica > cluster.gpus)
    throw t.error(job.tensor_parallel > cluster.gpus ? "tensor_parallel" : "pipeline_parallel",
                  fmt::format("one replica needs tensor × pipeline × context = {:.0f} GPUs, but the cluster has {}",
                              replica, cluster.gpus));
  if (!given && cluster.gpus % job.replica_gpus() != 0)
    throw t.error("data_parallel",
                  fmt::format("replicas of {} GPUs do not divide the cluster's {}; say how many there are to be",
                              job.replica_gpus(), cluster.gpus));
  job.data_parallel = static_cast<int>(given.value_or(cluster.gpus / job.replica_gpus()));
  if (replica * job.data_parallel > cluster.gpus)
    throw t.error("data_parallel",
                  fmt::format("{} replicas of {} GPUs need {:.0f}, but the cluster has {}", job.data_parallel,
                              job.replica_gpus(), replica * job.data_parallel, cluster.gpus));
}

void read_numerics(const Config& t, const TrainingStack& stack, bool fixed_layout, TrainingJob& job) {
  job.precision = read_precision(t, "precision", {"bf16", "fp16", "fp8", "tf32", "fp32"}, job.precision);
  job.sharding = read_enum(t, "sharding", kShardingNames, Sharding::none);
  job.recompute = read_enum(t, "recompute", kRecomputeNames, Recompute::none);
  job.optimizer = read_enum(t, "optimizer", kOptimizerNames, Optimizer::adamw);
  job.attention = read_enum(t, "attention", kTrainingAttentionNames, stack.attention);
  job.state_precision = read_precision(t, "state_precision", {"fp32", "bf16", "fp16"}, stack.state_precision);
  if (t.has("state_precision") && job.optimizer != Optimizer::adamw && job.optimizer != Optimizer::adam)
    throw t.error("state_precision", "belongs to optimizer = \"adamw\" or \"adam\"");
  job.gradient_precision = read_precision(t, "gradient_precision", {"fp32", "bf16", "fp16"}, stack.gradient_precision);
  job.kept_precision = read_precision(t, "kept_precision", {"bf16", "fp8"}, Precision::bf16);
  job.master_weights = t.boolean("master_weights", stack.master_weights);
  // A search takes the stack's for each layout that has tensor ranks, whatever the degree in the file.
  job.sequence_parallel =
      t.boolean("sequence_parallel", stack.sequence_parallel && (job.tensor_parallel > 1 || !fixed_layout));
}

void read_exchange(const Config& t, const TrainingStack& stack, const Cluster& cluster, TrainingJob& job) {
  job.overlap_gradients = t.boolean("overlap_gradients", stack.overlap_gradients);
  job.overlap_context = t.boolean("overlap_context", stack.overlap_context);
  job.overlap_tensor = t.boolean("overlap_tensor", stack.overlap_tensor);
  job.overlap_parameters = t.boolean("overlap_parameters", stack.overlap_parameters);
  job.bucket_bytes = t.quantity("gradient_bucket", Dimension::bytes, stack.bucket_bytes);
  if (job.bucket_bytes <= 0) throw t.error("gradient_bucket", "must be more than zero");
  job.compression = read_enum(t, "gradient_compression", kCompressionNames, GradientCompression::none);
  const auto rank = t.find_integer("powersgd_rank", {1, 4096});
  if (rank && job.compression != GradientCompression::powersgd)
    throw t.error("powersgd_rank", "belongs to gradient_compression = \"powersgd\"");
  job.powersgd_rank = static_cast<int>(rank.value_or(4));
  job.exchange = read_enum(t, "gradient_exchange", kExchangeNames, GradientExchange::all_reduce);
  const auto servers = t.find_integer("parameter_servers", {1, 1 << 20});
  if (servers && job.exchange != GradientExchange::parameter_server)
    throw t.error("parameter_servers", "belongs to gradient_exchange = \"parameter-server\"");
  job.parameter_servers =
      static_cast<int>(servers.value_or(job.exchange == GradientExchange::parameter_server ? 1 : 0));
  if (job.exchange == GradientExchange::parameter_server && !cluster.fabric)
    throw t.error("gradient_exchange", "a parameter server is reached over the fabric: cluster.fabric is missing");
}

void read_experts(const Config& t, TrainingJob& job) {
  job.dispatch = read_enum(t, "expert_dispatch", kDispatchNames, ExpertDispatch::all_to_all);
  job.dispatch_precision = read_precision(t, "dispatch_precision", {"bf16", "fp8"}, Precision::bf16);
  job.routed_nodes = static_cast<int>(t.integer("routed_nodes", {0, 1 << 20}, 0));
  job.mtp = static_cast<int>(t.integer("mtp", {0, 64}, 0));
}

void read_disturbances(const Config& t, const Cluster& cluster, TrainingJob& job) {
  // Token numbers of four bytes, as tokenised datasets keep them.
  job.input_bytes_per_sequence =
      t.quantity("input_bytes_per_sequence", Dimension::bytes, 4.0 * static_cast<double>(job.sequence));
  if (t.has("input_bytes_per_sequence") && !cluster.storage)
    throw t.error("input_bytes_per_sequence", "data is read from cluster.storage, which is missing");
  job.input_sequences_per_s_per_node = t.quantity("input_rate_per_node", Dimension::rate, 0);
  job.jitter = t.number("jitter", {0, 1}, 0);
  job.slow_gpu = t.number("slow_gpu", {1, 1000}, 1);
}

// A layout that is given must use what is said of the experts' exchange; a search tries others too.
void check_exchange(const Config& t, const TrainingJob& job, const Cluster& cluster) {
  if (job.dispatch == ExpertDispatch::deepep && job.expert_parallel == 1)
    throw t.error("expert_dispatch", "expert_parallel = 1 sends no tokens");
  const int per_node = std::max(1, cluster.gpus_per_node() / job.tensor_parallel);
  const int nodes = (job.expert_parallel + per_node - 1) / per_node;
  if (job.routed_nodes > nodes)
    throw t.error("routed_nodes", fmt::format("{} is more than the {} node{} that expert_parallel = {} reaches",
                                              job.routed_nodes, nodes, nodes > 1 ? "s" : "", job.expert_parallel));
}

void check(const Config& t, const TrainingJob& job, const Cluster& cluster) {
  if (const auto problem = training_problem(job)) throw t.error(problem.key, problem.message);
  if (const auto problem = placement_problem(job, cluster); !problem.empty()) throw t.error("tensor_parallel", problem);
  check_exchange(t, job, cluster);
}

}  // namespace

std::string placement_problem(const TrainingJob& job, const Cluster& cluster) {
  const int per_node = cluster.gpus_per_node(), t = job.tensor_parallel;
  if (t <= per_node ? per_node % t == 0 || job.gpus() <= per_node : t % per_node == 0) return "";
  return fmt::format("groups of {} GPUs do not fill nodes of {}: take a divisor or a multiple of it", t, per_node);
}

bool is_training_scenario(const std::filesystem::path& path, std::span<const std::string> assignments) {
  return Config::load(path.string(), assignments).has("training");
}

TrainingScenario read_training_scenario(const std::filesystem::path& path, std::span<const std::string> assignments,
                                        std::optional<uint64_t> seed, bool fixed_layout) {
  return read_training_scenario(Config::load(path.string(), assignments), seed, fixed_layout);
}

TrainingScenario read_training_scenario(const Config& file, std::optional<uint64_t> seed, bool fixed_layout) {
  const std::filesystem::path path = file.file();
  for (const char* table : {"serving", "workload", "slo"})
    if (file.has(table)) throw file.error(table, "a scenario trains or serves, not both: [training] takes its place");
  TrainingScenario scenario;
  scenario.path = path.string();
  scenario.title = file.text("title", path.stem().string());
  scenario.seed = static_cast<uint64_t>(file.integer("seed", {0, std::numeric_limits<int64_t>::max()}, 42));
  if (seed) scenario.seed = *seed;
  scenario.cluster = read_cluster(file.table("cluster"));
  const ModelChoice model = read_model(file.table("model"), path.parent_path());
  if (const auto network = file.find_table("network")) scenario.network = read_collective_options(*network);

  const Config t = file.table("training");
  if (t.find_text("stack")) scenario.stack = t.choice("stack", training_stack_names());
  const TrainingStack stack = load_training_stack(scenario.cluster.gpu, scenario.stack);
  TrainingJob& job = scenario.job;
  job.model = model.architecture;
  job.precision = model.weights;
  scenario.weights = name_of(model.weights);
  if (!t.has("precision") &&
      (model.weights == Precision::int8 || model.weights == Precision::int4 || model.weights == Precision::fp4))
    throw t.error("precision",
                  fmt::format("weights of {} are not trained: say bf16, fp16, fp8, tf32 or fp32", scenario.weights));
  read_degrees(t, scenario.cluster, fixed_layout, job);
  job.micro_batch = t.integer("micro_batch", kSequences, 1);
  // A search has no data_parallel yet: one micro-batch for each GPU.
  job.global_batch = t.integer("global_batch", kSequences,
                               job.micro_batch * (fixed_layout ? job.data_parallel : scenario.cluster.gpus));
  job.sequence = t.integer("sequence", kTokens, std::min<int64_t>(job.model.max_positions, 2048));
  job.schedule = t.choice("schedule", schedule_names(), "1f1b");
  job.virtual_stages = static_cast<int>(t.integer("virtual_stages", {1, 1024}, job.schedule == "interleaved" ? 2 : 1));
  read_numerics(t, stack, fixed_layout, job);
  read_exchange(t, stack, scenario.cluster, job);
  read_experts(t, job);
  read_disturbances(t, scenario.cluster, job);
  if (fixed_layout) check(t, job, scenario.cluster);
  file.finish();
  return scenario;
}

}  // namespace dssim
