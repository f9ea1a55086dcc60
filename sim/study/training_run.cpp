// SPDX-License-Identifier: Apache-2.0
#include "sim/study/training_run.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "sim/base/names.hpp"

namespace dssim {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

using Part = std::pair<std::string_view, double>;

Bottleneck find_bottleneck(const TrainingReport& report) {
  const StepParts& p = report.step.parts;
  const double step = p.total_s();
  auto parts = p.named();
  std::stable_sort(parts.begin(), parts.end(), [](const Part& a, const Part& b) { return a.second > b.second; });
  Bottleneck bottleneck;
  bottleneck.name = std::string(parts.front().first) + (parts.front().first == "compute" ? "" : " ahead of compute");
  for (const auto& [name, seconds] : parts)
    if (name != "compute" && seconds > 0.02 * step)
      bottleneck.evidence.push_back(fmt::format("{:.1f} % of the step is {}", 100 * seconds / step, name));
  return bottleneck;
}

// The job with the fewest data ranks that its experts and its schedule allow, the same work for each replica.
TrainingJob one_replica(const TrainingJob& job) {
  TrainingJob alone = job;
  for (int data = 1; data <= job.data_parallel; ++data) {
    if (job.data_parallel % data != 0) continue;
    alone.data_parallel = data;
    alone.global_batch = job.global_batch / job.data_parallel * data;
    if (!training_problem(alone)) break;
  }
  return alone;
}

TrainingReport report_of(const TrainingScenario& scenario, StepPredictor& predictor, const TrainingJob& job) {
  TrainingReport report;
  report.job = job;
  report.setup = training_setup(scenario, job, predictor.stack().name);
  report.step = predictor.predict(job);
  const Cluster& cluster = predictor.cluster();
  const TrainingStep alone = predictor.predict(one_replica(job));
  report.scaling_efficiency = report.step.tokens_per_s_per_gpu() / alone.tokens_per_s_per_gpu();
  report.bottleneck = find_bottleneck(report);
  const auto& covered = report.step.coverage_s;
  if (const double total = covered[0] + covered[1] + covered[2]; total > 0)
    report.trust = {covered[0] / total, covered[1] / total, covered[2] / total, {}, {}};
  report.trust.sources = predictor.sources();
  report.capital_usd = cluster.price_usd();
  report.power_w = cluster.power_w();
  if (job.gpus() < cluster.gpus)
    report.notes.push_back(
        fmt::format("{} of the cluster's {} GPUs stand idle", cluster.gpus - job.gpus(), cluster.gpus));
  if (predictor.stack().gpu != cluster.gpu.name)
    report.notes.push_back(
        fmt::format("training figures of {} carried over from {}", predictor.stack().name, predictor.stack().gpu));
  if (predictor.kernels().transferred())
    report.notes.push_back(fmt::format("no kernels were measured on {}: times are carried over from {}",
                                       cluster.gpu.name, predictor.kernels().stack().gpu));
  return report;
}

std::string remedy_text(const TrainingReport& report) {
  return report.remedies.empty() ? "no change of sharding, recomputation or degrees on these GPUs makes it fit"
                                 : "would fit: " + join(report.remedies, "; ");
}

// Growth of each part per token and GPU, as shares of the first row's whole.
std::string lost_text(const TrainingReport& first, const TrainingReport& report) {
  const auto per_token = [](const TrainingReport& r) { return r.step.gpus / r.job.tokens_per_step(); };
  const double whole = first.step.step_s() * per_token(first);
  const auto before = first.step.parts.named(), now = report.step.parts.named();
  std::vector<Part> grown;
  for (size_t i = 0; i < now.size(); ++i) {
    const double growth = (now[i].second * per_token(report) - before[i].second * per_token(first)) / whole;
    if (growth >= 0.0005) grown.emplace_back(now[i].first, growth);
  }
  std::stable_sort(grown.begin(), grown.end(), [](const Part& a, const Part& b) { return a.second > b.second; });
  std::string text;
  for (size_t i = 0; i < std::min<size_t>(3, grown.size()); ++i)
    text += fmt::format("{}{:.1f} % {}", i ? ", " : "", 100 * grown[i].second, grown[i].first);
  return text;
}

Cluster cluster_with(const Cluster& cluster, int gpus) {
  Cluster changed = cluster;
  const int per_node = cluster.gpus_per_node();
  changed.nodes = (gpus + per_node - 1) / per_node;
  changed.gpus = gpus;
  return changed;
}

ScalePoint scale_point(const TrainingScenario& scenario, int gpus, bool weak) {
  ScalePoint point;
  point.gpus = gpus;
  TrainingJob job = scenario.job;
  const int replica = job.replica_gpus(), per_node = scenario.cluster.gpus_per_node();
  const int64_t per_replica = job.global_batch / job.data_parallel;
  if (gpus % replica != 0) {
    point.reason = fmt::format("replicas of {} GPUs do not divide {}", replica, gpus);
    return point;
  }
  if (gpus > per_node && (gpus % per_node != 0 || !scenario.cluster.fabric)) {
    point.reason = scenario.cluster.fabric ? fmt::format("{} GPUs do not fill nodes of {}", gpus, per_node)
                                           : "several nodes need cluster.fabric";
    return point;
  }
  job.data_parallel = gpus / replica;
  if (weak) job.global_batch = per_replica * job.data_parallel;
  if (const auto problem = training_problem(job)) {
    point.reason = problem.key + ": " + problem.message;
    return point;
  }
  StepPredictor predictor(cluster_with(scenario.cluster, gpus), scenario.stack, scenario.network);
  const auto memory = predictor.memory(job);
  if (!memory.fits) {
    point.reason = fmt::format("does not fit: {} short per GPU", format_bytes(memory.shortfall_bytes));
    return point;
  }
  point.report = report_of(scenario, predictor, job);
  return point;
}

void compare_with_first(std::vector<ScalePoint>& points) {
  const auto first = std::find_if(points.begin(), points.end(), [](const auto& p) { return p.report.has_value(); });
  if (first == points.end()) return;
  for (auto& point : points) {
    if (!point.report) continue;
    point.efficiency = point.report->step.tokens_per_s_per_gpu() / first->report->step.tokens_per_s_per_gpu();
    point.lost = lost_text(*first->report, *point.report);
  }
}

}  // namespace

std::string layout_text(const TrainingJob& job) {
  std::string text =
      fmt::format("tensor {} × pipeline {} × data {}", job.tensor_parallel, job.pipeline_parallel, job.data_parallel);
  if (job.context_parallel > 1) text += fmt::format(" × context {}", job.context_parallel);
  if (job.expert_parallel > 1)
    text += fmt::format(", experts over {}{}", job.expert_parallel,
                        job.dispatch == ExpertDispatch::deepep ? " by DeepEP" : "");
  if (job.mtp > 0) text += fmt::format(", {} prediction module{}", job.mtp, job.mtp > 1 ? "s" : "");
  text += fmt::format(", {} micro-batches of {}", job.micro_batches(), job.micro_batch);
  if (job.pipeline_parallel > 1)
    text += fmt::format(", {}{}", job.schedule, job.virtual_stages > 1 ? fmt::format(" × {}", job.virtual_stages) : "");
  if (job.sharding != Sharding::none) text += fmt::format(", {}", kShardingNames[static_cast<size_t>(job.sharding)]);
  if (job.recompute != Recompute::none)
    text += fmt::format(", recompute {}", kRecomputeNames[static_cast<size_t>(job.recompute)]);
  if (job.sequence_parallel) text += ", sequence parallel";
  return text;
}

Setup training_setup(const TrainingScenario& scenario, const TrainingJob& job, const std::string& stack) {
  const Cluster& c = scenario.cluster;
  Setup setup;
  setup.scenario = scenario.path;
  setup.title = scenario.title;
  setup.seed = scenario.seed;
  setup.model = fmt::format("{}, {} parameters, {} products, sequences of {}", job.model.title,
                            format_count(job.model.parameters()), name_of(job.precision), job.sequence);
  setup.hardware = fmt::format("{} × {} ({} × {}{})", job.gpus(), c.gpu.title,
                               (job.gpus() + c.gpus_per_node() - 1) / c.gpus_per_node(), c.node.name,
                               c.fabric ? ", " + c.fabric->name : "");
  setup.deployment = layout_text(job);
  setup.stack = stack;
  return setup;
}

TrainingReport query_training_fit(const TrainingScenario& scenario) {
  const auto start = Clock::now();
  StepPredictor predictor(scenario.cluster, scenario.stack, scenario.network);
  TrainingReport report = report_of(scenario, predictor, scenario.job);
  if (!report.step.memory.fits)
    report.remedies = training_remedies(scenario.job, predictor.stack(), scenario.cluster.gpu.memory_bytes,
                                        scenario.cluster.gpus_per_node());
  report.wall_s = seconds_since(start);
  return report;
}

void require_training_fit(const TrainingReport& report) {
  if (report.step.memory.fits) return;
  throw cannot_run(fmt::format("{}: does not fit: {} short by {} per GPU; {}", report.setup.scenario,
                               report.setup.model, format_bytes(report.step.memory.shortfall_bytes),
                               remedy_text(report)));
}

TrainingReport run_training(const TrainingScenario& scenario, TrainingReport* partial) {
  TrainingReport report = query_training_fit(scenario);
  if (partial != nullptr) *partial = report;
  require_training_fit(report);
  return report;
}

ScaleReport run_training_scale(const TrainingScenario& scenario, const std::vector<int>& gpu_counts) {
  const auto start = Clock::now();
  ScaleReport report;
  report.setup = training_setup(scenario, scenario.job, scenario.stack);
  for (const int gpus : gpu_counts) {
    report.weak.push_back(scale_point(scenario, gpus, true));
    report.strong.push_back(scale_point(scenario, gpus, false));
  }
  compare_with_first(report.weak);
  compare_with_first(report.strong);
  report.wall_s = seconds_since(start);
  return report;
}

}  // namespace dssim
