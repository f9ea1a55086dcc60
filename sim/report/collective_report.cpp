// SPDX-License-Identifier: Apache-2.0
#include "sim/report/collective_report.hpp"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "sim/base/units.hpp"
#include "sim/report/text_layout.hpp"

namespace dssim {
namespace {

constexpr std::array<std::string_view, 3> kCoverageNames{"inside", "edge", "outside"};

// "64 KiB", "1.5 MiB", "1000 B": message sizes are powers of two as a rule.
std::string size_text(double bytes) {
  constexpr std::array<std::string_view, 5> kUnits{"B", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  while (bytes >= 1024 && unit + 1 < kUnits.size()) {
    bytes /= 1024;
    ++unit;
  }
  return fmt::format("{:.4g} {}", bytes, kUnits[unit]);
}

std::string origin(const CollectiveTime& time) {
  if (time.coverage == Coverage::inside) return "measured";
  return time.measured ? "scaled" : "formula";
}

}  // namespace

std::string console_text(const CollectiveReport& report, bool colour) {
  TextLayout out(colour);
  out.title(fmt::format("{}: {} of {} GPUs", report.title, name_of(report.kind), report.gpus));
  out.line("hardware", report.hardware);
  out.line("group", report.group);
  out.blank();
  const bool simulated = report.flows > 0;
  out.plain(fmt::format("{:>11}  {:<13}{:<8}{:>10}{:>11}{:>11}  {:<9}{}", "size", "algorithm", "protocol", "time",
                        "algbw GB/s", "busbw GB/s", "from", simulated ? " simulated" : ""));
  for (const auto& row : report.rows)
    out.plain(fmt::format("{:>11}  {:<13}{:<8}{:>10}{:>11.3f}{:>11.3f}  {:<9}{}", size_text(row.bytes),
                          row.time.algorithm, row.time.protocol, format_time(row.time.seconds),
                          row.algorithm_bytes_per_s / 1e9, row.bus_bytes_per_s / 1e9, origin(row.time),
                          simulated ? fmt::format("{:>10}", format_time(row.simulated_s)) : ""));
  out.blank();
  out.line("time", report.eager ? "with the launch of each call by the host, where that was measured"
                                : "on the GPU: the host has launched ahead, or replays a CUDA graph");
  if (simulated) out.line("simulated", fmt::format("{} flows", report.flows));
  for (const auto& source : report.sources) out.line("source", source);
  return out.take();
}

std::string json_text(const CollectiveReport& report) {
  using Json = nlohmann::ordered_json;
  Json rows = Json::array();
  for (const auto& row : report.rows) {
    Json json = {{"bytes", row.bytes},
                 {"algorithm", row.time.algorithm},
                 {"protocol", row.time.protocol},
                 {"seconds", row.time.seconds},
                 {"latency_s", row.time.latency_s},
                 {"algbw_bytes_per_s", row.algorithm_bytes_per_s},
                 {"busbw_bytes_per_s", row.bus_bytes_per_s},
                 {"from", origin(row.time)},
                 {"coverage", kCoverageNames[static_cast<size_t>(row.time.coverage)]}};
    if (report.flows > 0) json["simulated_s"] = row.simulated_s;
    rows.push_back(std::move(json));
  }
  Json json = {{"scenario", report.scenario},
               {"kind", "collective"},
               {"title", report.title},
               {"hardware", report.hardware},
               {"op", name_of(report.kind)},
               {"gpus", report.gpus},
               {"nodes", report.nodes},
               {"launch", report.eager ? "eager" : "queued"},
               {"rows", rows},
               {"sources", report.sources}};
  if (report.flows > 0) json["flows"] = report.flows;
  return json.dump(2) + "\n";
}

}  // namespace dssim
