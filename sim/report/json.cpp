// SPDX-License-Identifier: Apache-2.0
#include "sim/report/json.hpp"

#include <nlohmann/json.hpp>

#include "sim/report/trust_json.hpp"

namespace dssim {
namespace {

using Json = nlohmann::ordered_json;

Json quantiles_json(const Quantiles& q) {
  return {{"mean", q.mean()},        {"p50", q.quantile(0.5)},  {"p90", q.quantile(0.9)},
          {"p95", q.quantile(0.95)}, {"p99", q.quantile(0.99)}, {"max", q.max()}};
}

Json memory_json(const MemoryPlan& m) {
  Json json = {{"gpu_bytes", m.gpu_bytes},
               {"budget_bytes", m.budget_bytes},
               {"weights_bytes", m.weights_bytes},
               {"kv_bytes", m.kv_bytes},
               {"activation_bytes", m.activation_bytes},
               {"reserved_bytes", m.reserved_bytes()},
               {"kv_bytes_per_token", m.kv_bytes_per_token},
               {"kv_tokens", m.kv_tokens}};
  if (!m.fits) json["shortfall_bytes"] = m.shortfall_bytes;
  if (m.stages.size() > 1)
    for (const StageMemory& stage : m.stages)
      json["stages"].push_back({{"layers", stage.layers},
                                {"weights_bytes", stage.weights_bytes},
                                {"activation_bytes", stage.activation_bytes},
                                {"kv_bytes_per_token", stage.kv_bytes_per_token}});
  return json;
}

Json breakdown_json(const std::array<double, kOperatorClasses>& shares) {
  Json json = Json::object();
  for (size_t i = 0; i < shares.size(); ++i)
    if (shares[i] > 0) json[std::string(kOperatorClassNames[i])] = shares[i];
  return json;
}

Json setup_json(const Setup& setup) {
  return {{"scenario", setup.scenario},     {"kind", "serving"},
          {"title", setup.title},           {"seed", setup.seed},
          {"model", setup.model},           {"hardware", setup.hardware},
          {"deployment", setup.deployment}, {"stack", setup.stack}};
}

Json fit_json(const FitReport& report) {
  Json json = setup_json(report.setup);
  json["fits"] = report.memory.fits;
  json["memory"] = memory_json(report.memory);
  if (report.load_s) json["load_s"] = *report.load_s;
  if (!report.memory.fits) json["remedies"] = report.remedies;
  return json;
}

std::string dump(const Json& json) {
  return json.dump(2) + "\n";
}

}  // namespace

std::string json_text(const FitReport& report) {
  return dump(fit_json(report));
}

std::string json_text(const ServingReport& report) {
  const ServingSummary& s = report.summary;
  Json json = fit_json(report.fit);
  if (report.partial) json["partial"] = true;
  if (!report.notes.empty()) json["notes"] = report.notes;
  json["requests"] = {{"offered", s.offered_count()}, {"completed", s.completed()},   {"rejected", s.rejected()},
                      {"timed_out", s.timed_out()},   {"unfinished", s.unfinished()}, {"preempted", s.preempted()}};
  if (s.ttft().count() > 0) json["ttft_s"] = quantiles_json(s.ttft());
  if (s.tpot().count() > 0) json["tpot_s"] = quantiles_json(s.tpot());
  if (s.e2e().count() > 0) json["e2e_s"] = quantiles_json(s.e2e());
  if (s.queue().count() > 0) json["queue_s"] = quantiles_json(s.queue());
  if (const double span = s.makespan_s(); span > 0) {
    json["makespan_s"] = span;
    json["throughput"] = {{"requests_per_s", static_cast<double>(s.completed()) / span},
                          {"input_tokens_per_s", s.input_tokens() / span},
                          {"output_tokens_per_s", s.output_tokens() / span},
                          {"goodput_requests_per_s", static_cast<double>(s.good()) / span}};
    if (report.users == 0 && s.offered_per_s() > 0) json["throughput"]["offered_requests_per_s"] = s.offered_per_s();
  }
  if (s.objective().any()) json["slo_met"] = s.objective_met();
  if (s.input_tokens() > 0 && s.cached_tokens() > 0)
    json["prefix_cache_hit_rate"] = s.cached_tokens() / s.input_tokens();
  json["breakdown"] = breakdown_json(report.breakdown);
  json["bottleneck"] = {{"name", report.bottleneck.name}, {"evidence", report.bottleneck.evidence}};
  const Utilisation& u = report.utilisation;
  json["utilisation"] = {{"gpu", u.gpu},
                         {"kv_cache", u.kv_cache},
                         {"kv_cache_peak", u.kv_cache_peak},
                         {"memory_bandwidth_decode", u.memory_bandwidth},
                         {"compute_decode", u.compute},
                         {"mean_decode_sequences", u.mean_decode_sequences},
                         {"prefill_tokens", u.prefill_tokens}};
  if (report.capital_usd > 0) json["cost"] = {{"capital_usd", report.capital_usd}};
  if (report.power_w > 0) json["power"] = {{"max_w", report.power_w}};
  json["trust"] = trust_json(report.trust);
  json["engine_steps"] = report.steps;
  json["network_flows"] = report.flows;
  json["simulated_s"] = report.simulated_s;
  json["wall_s"] = report.wall_s;
  return dump(json);
}

std::string json_text(const StepReport& report) {
  Json json = setup_json(report.setup);
  json["step"] = report.shape;
  json["step_s"] = report.price.total_s();
  json["host_s"] = report.price.host_s;
  json["breakdown"] = breakdown_json(report.breakdown);
  Json operators = Json::array();
  constexpr std::string_view kCoverage[] = {"inside", "edge", "outside"};
  for (const auto& op : report.operators) {
    Json entry = {
        {"name", op.name}, {"class", kOperatorClassNames[static_cast<size_t>(op.kind)]}, {"seconds", op.seconds}};
    if (op.flops > 0) entry["flops"] = op.flops;
    if (op.bytes > 0) entry["bytes"] = op.bytes;
    if (op.kind != OperatorClass::host) entry["coverage"] = kCoverage[static_cast<size_t>(op.coverage)];
    operators.push_back(entry);
  }
  json["operators"] = operators;
  json["trust"] = trust_json(report.trust);
  return dump(json);
}

}  // namespace dssim
