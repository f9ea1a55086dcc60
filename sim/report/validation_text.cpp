// SPDX-License-Identifier: Apache-2.0
#include "sim/report/validation_text.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "sim/base/units.hpp"
#include "sim/report/sections.hpp"
#include "sim/report/trust_json.hpp"

namespace dssim {

std::string console_text(const ValidationReport& report, bool colour) {
  TextLayout out(colour);
  add_setup(out, report.setup);
  if (!report.figures.empty()) {
    out.section("Requests");
    out.plain(fmt::format("  {:<14}{:>12}{:>12}{:>10}", "", "measured", "predicted", "error"));
    for (const auto& f : report.figures)
      out.plain(fmt::format("  {:<14}{:>12}{:>12}{:>+9.1f}%", f.name, format_time(f.measured_s),
                            format_time(f.predicted_s), 100 * f.error()));
  }
  if (!report.iterations.empty()) {
    out.section("Iterations");
    out.plain(fmt::format("  {:<10}{:>10}{:>13}{:>13}{:>13}{:>14}", "kind", "count", "median |e|", "p90 |e|", "bias",
                          "measured"));
    for (const auto& row : report.iterations)
      out.plain(fmt::format("  {:<10}{:>10}{:>12.1f}%{:>12.1f}%{:>+12.1f}%{:>14}", row.kind, row.count,
                            100 * row.median, 100 * row.p90, 100 * row.bias, format_time(row.measured_s)));
  }
  add_trust(out, report.trust);
  return out.take();
}

std::string json_text(const ValidationReport& report) {
  using Json = nlohmann::ordered_json;
  Json json = {{"scenario", report.setup.scenario}, {"kind", "validation"}};
  for (const auto& f : report.figures)
    json["figures"].push_back(
        {{"name", f.name}, {"measured_s", f.measured_s}, {"predicted_s", f.predicted_s}, {"error", f.error()}});
  for (const auto& row : report.iterations)
    json["iterations"].push_back({{"kind", row.kind},
                                  {"count", row.count},
                                  {"median_error", row.median},
                                  {"p90_error", row.p90},
                                  {"bias", row.bias},
                                  {"measured_s", row.measured_s}});
  json["trust"] = trust_json(report.trust);
  return json.dump(2) + "\n";
}

}  // namespace dssim
