// SPDX-License-Identifier: Apache-2.0
#include "sim/report/training_json.hpp"

#include <nlohmann/json.hpp>

#include "sim/report/trust_json.hpp"

namespace dssim {
namespace {

using Json = nlohmann::ordered_json;

Json setup_json(const Setup& setup) {
  return {{"scenario", setup.scenario},     {"kind", "training"},
          {"title", setup.title},           {"seed", setup.seed},
          {"model", setup.model},           {"hardware", setup.hardware},
          {"deployment", setup.deployment}, {"stack", setup.stack}};
}

Json terms_json(const TrainingStageMemory& m) {
  return {{"weights_bytes", m.weights_bytes},     {"gradient_bytes", m.gradient_bytes},
          {"optimizer_bytes", m.optimizer_bytes}, {"activation_bytes", m.activation_bytes},
          {"reserved_bytes", m.reserved_bytes},   {"total_bytes", m.total_bytes()}};
}

Json memory_json(const TrainingMemory& m) {
  Json json = {{"gpu_bytes", m.gpu_bytes}};
  json.update(terms_json(m));
  json["stage"] = m.stage;
  if (m.stages.size() > 1)
    for (const auto& stage : m.stages) json["stages"].push_back(terms_json(stage));
  if (!m.fits) json["shortfall_bytes"] = m.shortfall_bytes;
  return json;
}

Json layout_json(const TrainingJob& j) {
  return {{"tensor_parallel", j.tensor_parallel},
          {"pipeline_parallel", j.pipeline_parallel},
          {"data_parallel", j.data_parallel},
          {"context_parallel", j.context_parallel},
          {"expert_parallel", j.expert_parallel},
          {"micro_batch", j.micro_batch},
          {"global_batch", j.global_batch},
          {"sequence", j.sequence},
          {"schedule", j.schedule},
          {"virtual_stages", j.virtual_stages},
          {"sharding", kShardingNames[static_cast<size_t>(j.sharding)]},
          {"recompute", kRecomputeNames[static_cast<size_t>(j.recompute)]},
          {"sequence_parallel", j.sequence_parallel}};
}

Json training_json(const TrainingStep& s) {
  const StepParts& p = s.parts;
  return {{"step_s", s.step_s()},
          {"tokens_per_s", s.tokens_per_s},
          {"tokens_per_s_per_gpu", s.tokens_per_s_per_gpu()},
          {"gpus", s.gpus},
          {"micro_batches", s.micro_batches},
          {"mfu", s.mfu()},
          {"hfu", s.hfu()},
          {"model_flops_per_step", s.model_flops},
          {"hardware_flops_per_step", s.hardware_flops},
          {"breakdown",
           {{"compute_s", p.compute_s},
            {"tensor_s", p.tensor_s},
            {"pipeline_bubble_s", p.pipeline_bubble_s},
            {"data_s", p.data_s},
            {"expert_s", p.expert_s},
            {"other_s", p.other_s()}}},
          {"other",
           {{"context_s", p.context_s},
            {"recompute_s", p.recompute_s},
            {"optimizer_s", p.optimizer_s},
            {"host_s", p.host_s},
            {"stragglers_s", p.stragglers_s},
            {"input_s", p.input_s}}},
          {"gradient_bytes_sent", s.gradient_bytes_sent}};
}

Json links_json(const TrainingStep& s) {
  Json json = Json::object();
  if (s.node_link.seconds > 0) json["node_links"] = s.node_link.seconds / s.step_s();
  if (s.fabric.seconds > 0) json["fabric"] = s.fabric.seconds / s.step_s();
  return json;
}

Json fit_json(const TrainingReport& report) {
  Json json = setup_json(report.setup);
  json["fits"] = report.step.memory.fits;
  json["memory"] = memory_json(report.step.memory);
  if (!report.step.memory.fits) json["remedies"] = report.remedies;
  return json;
}

Json report_json(const TrainingReport& report) {
  Json json = fit_json(report);
  if (!report.notes.empty()) json["notes"] = report.notes;
  json["layout"] = layout_json(report.job);
  Json training = training_json(report.step);
  training["scaling_efficiency"] = report.scaling_efficiency;
  json["training"] = training;
  json["bottleneck"] = {{"name", report.bottleneck.name}, {"evidence", report.bottleneck.evidence}};
  json["utilisation"] = links_json(report.step);
  if (report.capital_usd > 0) json["cost"] = {{"capital_usd", report.capital_usd}};
  if (report.power_w > 0) json["power"] = {{"max_w", report.power_w}};
  json["trust"] = trust_json(report.trust);
  json["pipeline_passes"] = report.step.passes;
  json["network_flows"] = report.step.flows;
  json["simulated_s"] = report.step.step_s();
  json["wall_s"] = report.wall_s;
  return json;
}

Json points_json(const std::vector<ScalePoint>& points) {
  Json rows = Json::array();
  for (const auto& p : points) {
    Json row = {{"gpus", p.gpus}, {"fits", p.report.has_value()}};
    if (p.report) {
      row["layout"] = layout_json(p.report->job);
      row["training"] = training_json(p.report->step);
      row["training"]["scaling_efficiency"] = p.efficiency;
      row["utilisation"] = links_json(p.report->step);
      row["lost"] = p.lost;
    } else {
      row["reason"] = p.reason;
    }
    rows.push_back(row);
  }
  return rows;
}

std::string dump(const Json& json) {
  return json.dump(2) + "\n";
}

}  // namespace

std::string fit_json_text(const TrainingReport& report) {
  return dump(fit_json(report));
}

std::string json_text(const TrainingReport& report) {
  return dump(report_json(report));
}

std::string json_text(const ScaleReport& report) {
  Json json = setup_json(report.setup);
  json["weak_scaling"] = points_json(report.weak);
  json["strong_scaling"] = points_json(report.strong);
  json["wall_s"] = report.wall_s;
  return dump(json);
}

std::string json_text(const SearchReport& report) {
  Json json = setup_json(report.setup);
  json["examined"] = report.examined;
  Json feasible = Json::array(), infeasible = Json::array();
  for (const auto& a : report.feasible)
    feasible.push_back({{"layout", layout_json(a.job)},
                        {"training", training_json(*a.step)},
                        {"memory", memory_json(a.step->memory)}});
  for (const auto& a : report.infeasible) infeasible.push_back({{"layout", layout_json(a.job)}, {"reason", a.reason}});
  json["feasible"] = feasible;
  json["infeasible"] = infeasible;
  json["wall_s"] = report.wall_s;
  return dump(json);
}

}  // namespace dssim
