// SPDX-License-Identifier: Apache-2.0
#include "sim/report/console.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "sim/base/units.hpp"
#include "sim/report/sections.hpp"

namespace dssim {

void add_setup(TextLayout& out, const Setup& setup) {
  out.title(setup.title);
  out.line("model", setup.model);
  out.line("hardware", setup.hardware);
  out.line("deployment", fmt::format("{}, stack {}", setup.deployment, setup.stack));
}

void add_trust(TextLayout& out, const Trust& trust) {
  out.section("Trust");
  out.line("GPU time", fmt::format("{} inside measured shapes, {} at their edge, {} extrapolated",
                                   TextLayout::percent(trust.inside), TextLayout::percent(trust.edge),
                                   TextLayout::percent(trust.outside)));
  if (trust.kernel_error)
    out.line("kernel times",
             fmt::format("± {} (p90 {}) on shapes that were not measured, judged for {} of GPU time",
                         TextLayout::percent(trust.kernel_error->median), TextLayout::percent(trust.kernel_error->p90),
                         TextLayout::percent(trust.kernel_error->share)));
  for (const auto& source : trust.sources) out.line("from", source);
}

namespace {

void add_memory(TextLayout& out, const MemoryPlan& m) {
  out.line("memory",
           fmt::format("{} per GPU of {}: {} weights, {} KV cache, {} activations, {} reserved",
                       m.fits ? "fits" : "DOES NOT FIT", format_bytes(m.gpu_bytes), format_bytes(m.weights_bytes),
                       format_bytes(m.kv_bytes), format_bytes(m.activation_bytes), format_bytes(m.reserved_bytes())));
  if (m.fits && m.kv_tokens > 0)
    out.line("", fmt::format("KV cache holds {} tokens{}", format_count(static_cast<double>(m.kv_tokens)),
                             m.kv_given ? " (given in the scenario)" : ""));
}

void add_load(TextLayout& out, const FitReport& fit) {
  if (fit.load_s) out.line("model load", fmt::format("{} from storage to every GPU, cold", format_time(*fit.load_s)));
}

// A rate in so many digits, and all of its whole ones: 4.694, 383342.
std::string rate(double per_s, int digits) {
  return per_s < 1e4 ? fmt::format("{:.{}g}", per_s, digits) : fmt::format("{:.0f}", per_s);
}

void add_latency_table(TextLayout& out, const ServingSummary& s) {
  if (s.completed() == 0) return;
  out.section("Latency");
  out.plain(fmt::format("  {:<13}{:>11}{:>11}{:>11}{:>11}{:>11}", "", "mean", "p50", "p90", "p99", "max"));
  const auto row = [&](std::string_view label, const Quantiles& q) {
    if (q.count() == 0) return;
    out.plain(fmt::format("  {:<13}{:>11}{:>11}{:>11}{:>11}{:>11}", label, format_time(q.mean()),
                          format_time(q.quantile(0.5)), format_time(q.quantile(0.9)), format_time(q.quantile(0.99)),
                          format_time(q.max())));
  };
  row("TTFT", s.ttft());
  row("TPOT", s.tpot());
  row("end to end", s.e2e());
  row("in queue", s.queue());
}

void add_throughput(TextLayout& out, const ServingReport& report) {
  const ServingSummary& s = report.summary;
  out.section("Throughput");
  std::string requests = fmt::format("{} completed of {} offered", s.completed(), s.offered_count());
  if (s.rejected() > s.timed_out()) requests += fmt::format(", {} refused", s.rejected() - s.timed_out());
  if (s.timed_out() > 0) requests += fmt::format(", {} timed out", s.timed_out());
  if (s.preempted() > 0) requests += fmt::format(", {} preempted", s.preempted());
  if (s.unfinished() > 0) requests += fmt::format(", {} unfinished", s.unfinished());
  out.line("requests", requests);
  if (report.users > 0)
    out.line("offered",
             fmt::format("by {} user{}, each asking again once answered", report.users, report.users == 1 ? "" : "s"));
  else if (s.offered_count() > 1)
    out.line("offered", s.offered_per_s() > 0 ? rate(s.offered_per_s(), 4) + " requests/s" : "all at once");
  const double span = s.makespan_s();
  if (span > 0)
    out.line("QPS", fmt::format("{} requests/s, {} input and {} output tokens/s over {}",
                                rate(static_cast<double>(s.completed()) / span, 4), rate(s.input_tokens() / span, 5),
                                rate(s.output_tokens() / span, 5), format_time(span)));
  if (s.cached_tokens() > 0)
    out.line("prefix cache",
             fmt::format("{} of input tokens found in it", TextLayout::percent(s.cached_tokens() / s.input_tokens())));
  if (s.objective().any() && span > 0) {
    const std::string text = fmt::format(
        "{} requests/s within every limit ({}); percentiles {} the objective",
        rate(static_cast<double>(s.good()) / span, 4),
        TextLayout::percent(static_cast<double>(s.good()) / static_cast<double>(std::max<uint64_t>(1, s.completed()))),
        s.objective_met() ? "keep" : "MISS");
    out.line("goodput", text);
  }
}

void add_breakdown(TextLayout& out, const std::array<double, kOperatorClasses>& shares) {
  std::vector<std::pair<double, std::string_view>> rows;
  for (size_t i = 0; i < shares.size(); ++i)
    if (shares[i] >= 0.0005) rows.emplace_back(shares[i], kOperatorClassNames[i]);
  std::stable_sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  for (const auto& [share, name] : rows) {
    std::string label(name);
    std::replace(label.begin(), label.end(), '_', ' ');
    out.plain(fmt::format("  {:<19}{:>6}  {}", label, TextLayout::percent(share), TextLayout::bar(share, 40)));
  }
}

}  // namespace

std::string console_text(const ServingReport& report, bool colour) {
  TextLayout out(colour);
  add_setup(out, report.fit.setup);
  add_memory(out, report.fit.memory);
  add_load(out, report.fit);
  if (report.partial)
    out.warn("PARTIAL", fmt::format("stopped after {} of simulated time", format_time(report.simulated_s)));
  for (const auto& note : report.notes) out.warn("note", note);
  add_throughput(out, report);
  add_latency_table(out, report.summary);
  out.section(fmt::format("Bottleneck: {}", report.bottleneck.name));
  for (const auto& evidence : report.bottleneck.evidence) out.line("", evidence);
  if (report.steps > 0) {
    out.section("Step time by operator class");
    add_breakdown(out, report.breakdown);
    add_trust(out, report.trust);
  }
  out.blank();
  out.plain(fmt::format("{} simulated in {} ({:.0f} × real time), {} engine steps", format_time(report.simulated_s),
                        format_time(report.wall_s), report.simulated_s / report.wall_s, report.steps));
  return out.take();
}

std::string console_text(const FitReport& report, bool colour) {
  TextLayout out(colour);
  const MemoryPlan& m = report.memory;
  add_setup(out, report.setup);
  out.section(m.fits ? "Fits" : fmt::format("Does not fit: {} short per GPU", format_bytes(m.shortfall_bytes)));
  const auto row = [&](std::string_view label, double bytes) {
    out.plain(fmt::format("  {:<30}{:>12}{:>8}  {}", label, format_bytes(bytes),
                          TextLayout::percent(bytes / m.gpu_bytes), TextLayout::bar(bytes / m.gpu_bytes, 26)));
  };
  row("GPU memory", m.gpu_bytes);
  row("usable by the engine", m.budget_bytes);
  row("weights", m.weights_bytes);
  row("activations, peak", m.activation_bytes);
  row("CUDA context, framework", m.context_bytes);
  if (m.graphs_bytes > 0) row("CUDA graphs", m.graphs_bytes);
  if (m.communication_bytes > 0) row("communication buffers", m.communication_bytes);
  row("KV cache", m.kv_bytes);
  add_load(out, report);
  if (m.fits && m.kv_tokens > 0) {
    out.section("KV cache");
    out.line("capacity", fmt::format("{} tokens in blocks of {}{}", m.kv_tokens, report.deployment.kv_block_tokens,
                                     m.kv_given ? " (given in the scenario)" : ""));
    out.line("per token", format_bytes(m.kv_bytes_per_token));
    std::string at;
    for (int64_t context = 1024; context <= std::min<int64_t>(131072, report.model_positions); context *= 4) {
      const int64_t sequences = max_concurrency(m.kv_tokens, report.deployment.kv_block_tokens, context);
      at += fmt::format("{}{} of {}", at.empty() ? "" : ", ", sequences, context);
    }
    if (!at.empty()) out.line("sequences", at + " tokens at once");
  } else if (!m.fits) {
    out.section("Would fit");
    for (const auto& remedy : report.remedies) out.line("-", remedy);
    if (report.remedies.empty()) out.plain("  nothing in this catalogue");
  }
  return out.take();
}

std::string console_text(const StepReport& report, bool colour) {
  TextLayout out(colour);
  add_setup(out, report.setup);
  out.line("step", report.shape);
  out.section(fmt::format("Step time {}", format_time(report.price.total_s())));
  out.plain(
      fmt::format("  {:<20}{:>10}{:>8}{:>13}{:>13}  {}", "operator", "time", "share", "TFLOP/s", "GB/s", "shape"));
  const double total = report.price.total_s();
  constexpr std::string_view kCoverage[] = {"inside", "edge", "outside"};
  for (const auto& op : report.operators) {
    if (op.seconds <= 0) continue;
    const auto rate = [&](double work, double unit) {
      return work > 0 ? fmt::format("{:.4g}", work / op.seconds / unit) : std::string();
    };
    out.plain(fmt::format("  {:<20}{:>10}{:>8}{:>13}{:>13}  {}", op.name, format_time(op.seconds),
                          TextLayout::percent(op.seconds / total), rate(op.flops, 1e12), rate(op.bytes, 1e9),
                          op.kind == OperatorClass::host ? "" : kCoverage[static_cast<size_t>(op.coverage)]));
  }
  out.section("Achieved");
  out.line("compute", fmt::format("{} of {} ({})", format_compute_rate(report.flops_per_s),
                                  format_compute_rate(report.peak_flops_per_s),
                                  TextLayout::percent(report.flops_per_s / report.peak_flops_per_s)));
  out.line("memory",
           fmt::format("{} of {} ({})", format_bandwidth(report.bytes_per_s), format_bandwidth(report.peak_bytes_per_s),
                       TextLayout::percent(report.bytes_per_s / report.peak_bytes_per_s)));
  add_trust(out, report.trust);
  return out.take();
}

}  // namespace dssim
