// SPDX-License-Identifier: Apache-2.0
#include "sim/study/parallelise.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <map>

#include "sim/base/progress.hpp"
#include "sim/study/training_run.hpp"
#include "sim/training/schedule.hpp"

namespace dssim {
namespace {

constexpr int64_t kLargestMicroBatch = 64;
constexpr int64_t kLongSequence = 16384;

std::vector<int> divisors(int64_t n, int64_t most) {
  std::vector<int> found;
  for (int64_t d = 1; d <= std::min(n, most); ++d)
    if (n % d == 0) found.push_back(static_cast<int>(d));
  return found;
}

struct ScheduleChoice {
  std::string name;
  int virtual_stages;
};

// Calls `visit` with every layout of the job on so many GPUs whose degrees multiply up; rules of the model come later.
template <typename Visit>
void for_each_layout(const TrainingScenario& scenario, const Visit& visit) {
  const Cluster& cluster = scenario.cluster;
  const TrainingJob& given = scenario.job;
  const int gpus = cluster.gpus;
  const bool long_sequences = given.sequence >= kLongSequence || given.context_parallel > 1;
  for (const int tensor : divisors(gpus, std::min(cluster.gpus_per_node(), gpus)))
    for (const int pipeline : divisors(gpus / tensor, given.model.layers))
      for (const int context : divisors(gpus / tensor / pipeline, long_sequences ? given.sequence / 1024 : 1)) {
        if (cluster.gpus_per_node() % tensor != 0) continue;
        const int data = gpus / tensor / pipeline / context;
        for (const int experts :
             divisors(given.model.is_moe() ? given.model.experts : 1, static_cast<int64_t>(data) * context)) {
          // One stage has no pipeline: every schedule is the same.
          const bool plain = given.schedule == "interleaved" || pipeline == 1;
          std::vector<ScheduleChoice> schedules{{plain ? "1f1b" : given.schedule, 1}};
          if (pipeline > 1)
            for (const int chunks : {2, 3, 4, 6, 8}) schedules.push_back({"interleaved", chunks});
          for (const auto& schedule : schedules)
            for (int64_t micro = 1; micro <= kLargestMicroBatch; micro *= 2)
              for (const auto sharding : {Sharding::none, Sharding::zero1, Sharding::zero2, Sharding::zero3})
                for (const auto recompute : {Recompute::none, Recompute::selective, Recompute::full}) {
                  if (sharding != Sharding::none && data * context == 1) continue;
                  TrainingJob job = given;
                  job.tensor_parallel = tensor;
                  job.pipeline_parallel = pipeline;
                  job.context_parallel = context;
                  job.expert_parallel = experts;
                  job.data_parallel = data;
                  job.micro_batch = micro;
                  job.schedule = schedule.name;
                  job.virtual_stages = schedule.virtual_stages;
                  job.sharding = sharding;
                  job.recompute = recompute;
                  job.sequence_parallel = given.sequence_parallel && tensor > 1;
                  visit(job);
                }
        }
      }
}

// What cannot run, shortly: of each set of degrees the layout that comes nearest to fitting, and of each rule one
// layout that breaks it.
class Refusals {
 public:
  void add_short(const TrainingJob& job, double shortfall_bytes) {
    const auto key = fmt::format("{} {} {} {}", job.tensor_parallel, job.pipeline_parallel, job.context_parallel,
                                 job.expert_parallel);
    keep(key, job, fmt::format("{} of memory short per GPU", format_bytes(shortfall_bytes)), shortfall_bytes);
  }
  void add_rule(const TrainingJob& job, const ParallelProblem& problem) {
    keep(problem.key, job, problem.key + ": " + problem.message, std::numeric_limits<double>::infinity());
  }
  std::vector<LayoutAnswer> take(size_t most) {
    std::vector<Entry> entries;
    for (auto& [reason, entry] : kept_) entries.push_back(std::move(entry));
    std::stable_sort(entries.begin(), entries.end(),
                     [](const auto& a, const auto& b) { return a.shortfall < b.shortfall; });
    std::vector<LayoutAnswer> answers;
    for (auto& entry : entries) {
      if (answers.size() == most) break;
      if (entry.count > 1) entry.answer.reason += fmt::format(" ({} more like it)", entry.count - 1);
      answers.push_back(std::move(entry.answer));
    }
    return answers;
  }

 private:
  struct Entry {
    LayoutAnswer answer;
    double shortfall = 0;
    size_t count = 0;
  };
  void keep(const std::string& key, const TrainingJob& job, const std::string& reason, double shortfall) {
    const auto [at, is_new] = kept_.try_emplace(key);
    Entry& entry = at->second;
    ++entry.count;
    if (is_new || shortfall < entry.shortfall) {
      entry.answer = {job, std::nullopt, reason};
      entry.shortfall = shortfall;
    }
  }

  std::map<std::string, Entry> kept_;
};

}  // namespace

SearchReport find_layouts(const TrainingScenario& scenario, const SearchOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  StepPredictor predictor(scenario.cluster, scenario.stack, scenario.network);
  Progress progress(options.progress);
  SearchReport report;
  Refusals refusals;
  for_each_layout(scenario, [&](const TrainingJob& job) {
    ++report.examined;
    if (progress.enabled() && progress.due())
      progress.show(fmt::format("{} layouts examined, {} run", report.examined, report.feasible.size()));
    if (const auto problem = training_problem(job)) return refusals.add_rule(job, problem);
    if (const auto memory = predictor.memory(job); !memory.fits) return refusals.add_short(job, memory.shortfall_bytes);
    report.feasible.push_back({job, predictor.predict(job), ""});
  });
  std::stable_sort(report.feasible.begin(), report.feasible.end(),
                   [](const auto& a, const auto& b) { return a.step->step_s() < b.step->step_s(); });
  report.infeasible = refusals.take(options.show_infeasible);
  TrainingJob shown = scenario.job;
  if (!report.feasible.empty()) shown = report.feasible.front().job;
  report.setup = training_setup(scenario, shown, predictor.stack().name);
  if (report.feasible.empty()) {
    std::string nearest = report.infeasible.empty() ? ""
                                                    : "; nearest: " + layout_text(report.infeasible.front().job) +
                                                          ": " + report.infeasible.front().reason;
    throw cannot_run(fmt::format("{}: none of {} layouts on {} GPUs can run{}", scenario.path, report.examined,
                                 scenario.cluster.gpus, nearest));
  }
  if (report.feasible.size() > options.show) report.feasible.resize(options.show);
  report.wall_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace dssim
