// SPDX-License-Identifier: Apache-2.0
#include "sim/report/training_text.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "sim/base/units.hpp"
#include "sim/report/sections.hpp"
#include "sim/report/text_layout.hpp"

namespace dssim {
namespace {

using Layout = TextLayout;

void add_memory(Layout& out, const TrainingMemory& m) {
  out.section(m.fits ? "Memory, fullest GPU"
                     : fmt::format("Does not fit: {} short per GPU", format_bytes(m.shortfall_bytes)));
  const auto row = [&](std::string_view label, double bytes) {
    if (bytes > 0)
      out.plain(fmt::format("  {:<30}{:>12}{:>8}  {}", label, format_bytes(bytes), Layout::percent(bytes / m.gpu_bytes),
                            Layout::bar(std::min(1.0, bytes / m.gpu_bytes), 26)));
  };
  row("GPU memory", m.gpu_bytes);
  row("weights", m.weights_bytes);
  row("gradients", m.gradient_bytes);
  row("optimizer", m.optimizer_bytes);
  row("activations, peak", m.activation_bytes);
  row("context, framework, buffers", m.reserved_bytes);
  if (m.stages.size() < 2) return;
  double least_bytes = m.total_bytes();
  for (const auto& stage : m.stages) least_bytes = std::min(least_bytes, stage.total_bytes());
  out.plain(fmt::format("  stage {} of {} holds {} in all; the stage with least holds {}", m.stage + 1, m.stages.size(),
                        format_bytes(m.total_bytes()), format_bytes(least_bytes)));
}

void add_parts(Layout& out, const StepParts& p) {
  for (const auto& [name, seconds] : p.named())
    if (seconds > 0)
      out.plain(fmt::format("  {:<18}{:>10}{:>8}  {}", name, format_time(seconds),
                            Layout::percent(seconds / p.total_s()), Layout::bar(seconds / p.total_s(), 36)));
}

void add_links(Layout& out, const TrainingStep& step) {
  const auto line = [&](std::string_view label, const LinkUse& use) {
    if (use.seconds > 0)
      out.line(label,
               fmt::format("{} a step over the busiest, {} of {}", format_bytes(use.bytes),
                           Layout::percent(use.seconds / step.step_s()), format_bandwidth(use.bytes / use.seconds)));
  };
  if (step.node_link.seconds <= 0 && step.fabric.seconds <= 0) return;
  out.section("Links");
  line("in the node", step.node_link);
  line("fabric", step.fabric);
}

std::string rate_text(double per_s) {
  return per_s < 1e6 ? fmt::format("{:.0f}", per_s) : format_count(per_s);
}

void add_scale_table(Layout& out, std::string_view title, const std::vector<ScalePoint>& points) {
  out.section(title);
  out.plain(fmt::format("  {:>7}{:>8}{:>11}{:>13}{:>12}{:>7}{:>12}  {}", "GPUs", "batch", "step", "tokens/s", "per GPU",
                        "MFU", "efficiency", "lost to"));
  for (const auto& p : points) {
    if (!p.report) {
      out.plain(fmt::format("  {:>7}  {}", p.gpus, p.reason));
      continue;
    }
    const TrainingStep& s = p.report->step;
    out.plain(fmt::format("  {:>7}{:>8}{:>11}{:>13}{:>12}{:>7}{:>12}  {}", p.gpus, p.report->job.global_batch,
                          format_time(s.step_s()), rate_text(s.tokens_per_s), rate_text(s.tokens_per_s_per_gpu()),
                          Layout::percent(s.mfu()), Layout::percent(p.efficiency), p.lost));
  }
}

std::string short_layout(const TrainingJob& j) {
  std::string schedule = j.pipeline_parallel == 1 ? "-" : j.schedule;
  if (j.virtual_stages > 1) schedule += fmt::format(" × {}", j.virtual_stages);
  return fmt::format("{:>4}{:>5}{:>6}{:>4}{:>4}{:>6}  {:<16}{:<7}{:<10}", j.tensor_parallel, j.pipeline_parallel,
                     j.data_parallel, j.context_parallel, j.expert_parallel, j.micro_batch, schedule,
                     kShardingNames[static_cast<size_t>(j.sharding)],
                     kRecomputeNames[static_cast<size_t>(j.recompute)]);
}

}  // namespace

std::string console_text(const TrainingReport& report, bool colour) {
  Layout out(colour);
  const TrainingStep& s = report.step;
  add_setup(out, report.setup);
  for (const auto& note : report.notes) out.warn("note", note);
  out.section(fmt::format("Step time {}", format_time(s.step_s())));
  out.line("throughput",
           fmt::format("{} tokens/s, {} per GPU", rate_text(s.tokens_per_s), rate_text(s.tokens_per_s_per_gpu())));
  out.line("MFU", fmt::format("{} of the dense {} rate (FLOPs the model needs)", Layout::percent(s.mfu()),
                              name_of(report.job.precision)));
  out.line("HFU", fmt::format("{} (with recomputation)", Layout::percent(s.hfu())));
  out.line("scaling", fmt::format("{} of one replica's tokens/s per GPU", Layout::percent(report.scaling_efficiency)));
  out.section(fmt::format("Where the step goes: {}", report.bottleneck.name));
  add_parts(out, s.parts);
  add_memory(out, s.memory);
  add_links(out, s);
  add_trust(out, report.trust);
  out.blank();
  out.plain(fmt::format("{} pipeline passes and {} flows priced in {}", s.passes, s.flows, format_time(report.wall_s)));
  return out.take();
}

std::string fit_text(const TrainingReport& report, bool colour) {
  Layout out(colour);
  add_setup(out, report.setup);
  add_memory(out, report.step.memory);
  if (!report.step.memory.fits) {
    out.section("Would fit");
    for (const auto& remedy : report.remedies) out.line("-", remedy);
    if (report.remedies.empty()) out.plain("  no change of sharding, recomputation or degrees on these GPUs");
  }
  return out.take();
}

std::string console_text(const ScaleReport& report, bool colour) {
  Layout out(colour);
  add_setup(out, report.setup);
  add_scale_table(out, "Weak scaling: the same sequences a replica", report.weak);
  add_scale_table(out, "Strong scaling: the same global batch", report.strong);
  out.blank();
  out.plain("  efficiency: tokens/s per GPU over the first row's; lost to: growth of that part of the step");
  return out.take();
}

std::string console_text(const SearchReport& report, bool colour) {
  Layout out(colour);
  add_setup(out, report.setup);
  out.section(fmt::format("Layouts by step time ({} examined)", report.examined));
  constexpr std::string_view kHead = "  tp   pp    dp  cp  ep micro  schedule        shard  recompute ";
  out.plain(fmt::format("{}{:>10}{:>7}{:>10}", kHead, "step", "MFU", "memory"));
  for (const auto& answer : report.feasible)
    out.plain(fmt::format("{}{:>10}{:>7}{:>10}", short_layout(answer.job), format_time(answer.step->step_s()),
                          Layout::percent(answer.step->mfu()), format_bytes(answer.step->memory.total_bytes())));
  if (!report.infeasible.empty()) out.section("Cannot run");
  for (const auto& answer : report.infeasible)
    out.plain(fmt::format("{}  {}", short_layout(answer.job), answer.reason));
  out.blank();
  out.plain(fmt::format("{} layouts examined in {}", report.examined, format_time(report.wall_s)));
  return out.take();
}

}  // namespace dssim
