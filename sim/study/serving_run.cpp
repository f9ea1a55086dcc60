// SPDX-License-Identifier: Apache-2.0
#include "sim/study/serving_run.hpp"

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <limits>

#include "sim/base/progress.hpp"
#include "sim/serving/policy.hpp"
#include "sim/serving/service.hpp"
#include "sim/study/bottleneck.hpp"
#include "sim/study/deployment_setup.hpp"
#include "sim/study/requests_csv.hpp"

namespace dssim {
namespace {

// Bytes of activations that a token hands to the next stage: hidden state and residual, in 16 bits (what vLLM sends).
double activation_bytes_per_token(const Architecture& model) {
  return 2.0 * 2.0 * static_cast<double>(model.hidden);
}

// An encoder answers with its prefill: there is nothing to decode, whatever the load says about outputs.
class EncoderStream final : public RequestStream {
 public:
  explicit EncoderStream(RequestStream& stream) : stream_(stream) {}
  bool next(Request& request) override {
    const bool known = stream_.next(request);
    request.output_tokens = 1;
    return known;
  }
  bool exhausted() const override { return stream_.exhausted(); }
  void completed(uint64_t id, double time_s) override { stream_.completed(id, time_s); }
  bool bring_forward(Request& expected) override { return stream_.bring_forward(expected); }
  int64_t users() const override { return stream_.users(); }
  std::optional<uint64_t> expected_requests() const override { return stream_.expected_requests(); }
  std::optional<double> expected_duration_s() const override { return stream_.expected_duration_s(); }

 private:
  RequestStream& stream_;
};

class Observer final : public ServiceObserver {
 public:
  Observer(const Scenario& scenario, const RunOptions& options, const Simulation& simulation, int64_t kv_tokens)
      : summary(scenario.objective),
        simulation_(simulation),
        progress_(options.progress),
        expected_(scenario.requests->expected_requests()),
        limit_(scenario.serving.limits.max_request_tokens),
        positions_(scenario.model.architecture.max_positions),
        kv_tokens_(scenario.model.architecture.is_encoder() ? std::numeric_limits<int64_t>::max() : kv_tokens) {
    if (options.requests_csv) csv_.emplace(*options.requests_csv);
  }

  void request_offered(const Request& request) override {
    summary.offered(request.arrival_s);
    const int64_t tokens = request.input_tokens + request.output_tokens;
    if (tokens > limit_) return;
    if (tokens - 1 > kv_tokens_)
      ++beyond_kv_;
    else if (tokens > positions_)
      ++beyond_positions_;
  }
  void request_ended(const RequestRecord& record) override {
    summary.finished(record);
    if (csv_) csv_->add(record);
    if ((++ended_ & 1023) == 0 && progress_.due()) show_progress();
  }
  void commit() {
    if (csv_) csv_->commit();
  }

  // What to know about requests that are too long: each is counted once.
  void add_notes(std::vector<std::string>& notes) const {
    if (beyond_kv_ > 0)
      notes.push_back(fmt::format("{} requests are refused: longer than the {} tokens that the KV cache holds",
                                  beyond_kv_, kv_tokens_));
    if (beyond_positions_ > 0)
      notes.push_back(fmt::format(
          "{} requests are longer than the model's {} positions; serving.max_model_tokens would refuse them",
          beyond_positions_, positions_));
  }

  ServingSummary summary;

 private:
  void show_progress() {
    const std::string of = expected_ ? fmt::format(" of {}", *expected_) : "";
    progress_.show(fmt::format("{}{} requests, {} simulated", ended_, of, format_time(simulation_.now())));
  }

  const Simulation& simulation_;
  Progress progress_;
  std::optional<uint64_t> expected_;
  int64_t limit_, positions_, kv_tokens_;
  std::optional<RequestsCsv> csv_;
  uint64_t ended_ = 0, beyond_kv_ = 0, beyond_positions_ = 0;
};

void add_replicas(Service& service, const Scenario& scenario, DeploymentSetup& setup) {
  const Deployment& d = scenario.deployment;
  for (size_t i = 0; i < setup.placement.stage_gpus.size(); ++i) {
    ReplicaShape shape;
    shape.tensor_parallel = static_cast<int>(d.tensor_parallel);
    shape.pipeline_parallel = static_cast<int>(d.pipeline_parallel);
    shape.stage_gpus = setup.placement.stage_gpus[i];
    for (const StageMemory& stage : setup.fit.memory.stages)
      shape.layer_share.push_back(static_cast<double>(stage.layers) /
                                  static_cast<double>(scenario.model.architecture.layers));
    shape.frontend_token_s = setup.cost->stack().frontend_token_s;
    shape.activation_bytes_per_token = activation_bytes_per_token(scenario.model.architecture);
    // An encoder keeps no KV cache, so nothing limits it there.
    constexpr int64_t kUnlimited = int64_t{1} << 40;
    const int64_t blocks =
        scenario.model.architecture.is_encoder() ? kUnlimited : setup.fit.memory.kv_tokens / d.kv_block_tokens;
    KvCache kv(blocks, d.kv_block_tokens, scenario.serving.prefix_cache);
    SchedulerLimits limits = scenario.serving.limits;
    limits.schedules_ahead = setup.cost->stack().schedules_ahead && d.pipeline_parallel == 1;
    limits.prompt_must_fit = setup.cost->stack().prompt_must_fit;
    Scheduler scheduler(limits, std::move(kv), make_policy(scenario.serving.policy), static_cast<uint32_t>(i));
    service.add_replica(shape, std::move(scheduler), *setup.steps);
  }
}

// Work of the operators that have any, over the time of all: the achieved rates of a step.
struct Achieved {
  double seconds = 0, flops = 0, bytes = 0;
};
Achieved achieved(const std::vector<OperatorPrice>& operators) {
  Achieved sum;
  for (const auto& op : operators) {
    sum.seconds += op.seconds;
    if (op.kind == OperatorClass::all_reduce) continue;
    sum.flops += op.flops;
    sum.bytes += op.bytes;
  }
  return sum;
}

Utilisation measure_utilisation(const Scenario& scenario, DeploymentSetup& setup, const ReplicaUsage& usage,
                                double makespan_s) {
  Utilisation u;
  const auto replicas = static_cast<double>(scenario.serving.replicas);
  const double blocks = static_cast<double>(setup.fit.memory.kv_tokens / scenario.deployment.kv_block_tokens);
  if (makespan_s > 0) u.gpu = std::min(1.0, usage.busy_s / (makespan_s * replicas));
  if (usage.busy_s > 0 && blocks > 0) {
    // Several batches in flight each count the blocks of all, over overlapping steps.
    const double step_seconds = usage.busy_s * static_cast<double>(scenario.deployment.pipeline_parallel);
    u.kv_cache = std::min(1.0, usage.kv_block_seconds / (step_seconds * blocks));
    u.kv_cache_peak = static_cast<double>(usage.peak_kv_blocks) / blocks;
  }
  u.prefill_tokens = usage.prefill_tokens;
  if (usage.decode_steps == 0) return u;
  const auto steps = static_cast<double>(usage.decode_steps);
  u.mean_decode_sequences = usage.decode_sequences / steps;
  StepShape mean;
  mean.decode_sequences = std::max<int64_t>(1, std::llround(u.mean_decode_sequences));
  mean.decode_kv_tokens = std::max<int64_t>(mean.decode_sequences, std::llround(usage.decode_kv_tokens / steps));
  const Achieved work = achieved(setup.steps->breakdown(mean));
  u.memory_bandwidth = work.bytes / work.seconds / scenario.cluster.gpu.memory_bytes_per_s;
  u.compute = work.flops / work.seconds / scenario.cluster.gpu.matrix_flops_per_s(scenario.deployment.weights);
  return u;
}

std::array<double, kOperatorClasses> shares_of(const StepUsage& usage) {
  std::array<double, kOperatorClasses> shares{};
  double total = 0;
  for (const double seconds : usage.class_s) total += seconds;
  for (size_t i = 0; i < shares.size(); ++i) shares[i] = total > 0 ? usage.class_s[i] / total : 0;
  return shares;
}

}  // namespace

ServingReport run_serving(Scenario& scenario, const RunOptions& options) {
  const auto started = std::chrono::steady_clock::now();
  if (!scenario.requests) throw bad_input(fmt::format("{}:1: [workload]: this table is missing", scenario.path));
  DeploymentSetup setup = set_up(scenario);
  require_fit(setup.fit);

  Simulation simulation(*setup.network);
  Observer observer(scenario, options, simulation, setup.fit.memory.kv_tokens);
  EncoderStream encoder_stream(*scenario.requests);
  RequestStream& requests = scenario.model.architecture.is_encoder() ? encoder_stream : *scenario.requests;
  Service service(simulation, requests, make_router(scenario.serving.router, scenario.seed),
                  setup.cost->stack().frontend_latency_s, observer);
  add_replicas(service, scenario, setup);
  simulation.on_idle([&service] {
    const int64_t left = service.outstanding();
    return left == 0 ? std::string() : fmt::format("{} requests", left);
  });
  service.start();
  const bool stopped = simulation.run() == Simulation::End::stopped;
  observer.commit();

  ServingReport report;
  report.partial = stopped;
  report.users = requests.users();
  report.simulated_s = simulation.now();
  report.flows = simulation.flows();
  const ReplicaUsage usage = service.usage();
  const StepUsage step_usage = service.step_usage();
  report.steps = usage.steps;
  report.breakdown = shares_of(step_usage);
  const double span_s = stopped ? simulation.now() : observer.summary.makespan_s();
  report.utilisation = measure_utilisation(scenario, setup, usage, span_s);
  report.trust = trust_of(step_usage, setup, scenario.deployment.weights);
  double step_seconds = 0;
  for (const double seconds : step_usage.class_s) step_seconds += seconds;
  report.bottleneck =
      find_bottleneck({.summary = observer.summary,
                       .breakdown = report.breakdown,
                       .utilisation = report.utilisation,
                       .max_sequences = scenario.deployment.max_sequences,
                       .stages = scenario.deployment.pipeline_parallel,
                       .mean_step_s = usage.steps == 0 ? 0 : step_seconds / static_cast<double>(usage.steps),
                       .mean_hand_over_s = usage.steps == 0 ? 0 : usage.hand_over_s / static_cast<double>(usage.steps),
                       .frontend_share = span_s > 0 ? usage.frontend_s / (span_s * scenario.serving.replicas) : 0,
                       .decode_only_share = step_seconds > 0 ? usage.decode_only_s / step_seconds : 0,
                       .gpu_bytes_per_s = scenario.cluster.gpu.memory_bytes_per_s});
  report.fit = std::move(setup.fit);
  report.notes = std::move(setup.notes);
  observer.add_notes(report.notes);
  report.summary = std::move(observer.summary);
  report.capital_usd = scenario.cluster.price_usd();
  report.power_w = scenario.cluster.power_w();
  report.wall_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  return report;
}

FitReport query_fit(const Scenario& scenario) {
  return set_up(scenario).fit;
}

StepReport query_step(const Scenario& scenario, const StepQuery& query) {
  DeploymentSetup setup = set_up(scenario);
  const std::vector<PrefillChunk> chunks(static_cast<size_t>(query.prompts),
                                         {query.prefill_tokens, query.past_tokens, true});
  StepShape shape;
  shape.decode_sequences = query.decode_sequences;
  shape.decode_kv_tokens = query.decode_sequences * query.decode_kv_tokens;
  shape.prefill = chunks;

  StepReport report;
  report.setup = setup.fit.setup;
  if (query.decode_sequences > 0)
    report.shape = fmt::format("decode of {} sequence{} at {} KV tokens", query.decode_sequences,
                               query.decode_sequences == 1 ? "" : "s", query.decode_kv_tokens);
  if (query.prompts > 0) {
    if (!report.shape.empty()) report.shape += " with ";
    report.shape += fmt::format("prefill of {}{} tokens", query.prompts > 1 ? fmt::format("{} × ", query.prompts) : "",
                                query.prefill_tokens);
    if (query.past_tokens > 0) report.shape += fmt::format(" onto {}", query.past_tokens);
  }
  StepUsage usage;
  report.price = setup.steps->price(shape, &usage);
  report.operators = setup.steps->breakdown(shape);
  report.breakdown = shares_of(usage);
  report.trust = trust_of(usage, setup, scenario.deployment.weights);
  const Achieved work = achieved(report.operators);
  report.flops_per_s = work.flops / work.seconds;
  report.bytes_per_s = work.bytes / work.seconds;
  report.peak_flops_per_s = scenario.cluster.gpu.matrix_flops_per_s(scenario.deployment.weights);
  report.peak_bytes_per_s = scenario.cluster.gpu.memory_bytes_per_s;
  return report;
}

}  // namespace dssim
