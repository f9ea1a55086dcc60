// SPDX-License-Identifier: Apache-2.0
#include "kernels/profile_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "kernels/attention_table.hpp"
#include "kernels/bandwidth_tables.hpp"
#include "kernels/gemm_table.hpp"
#include "kernels/moe_table.hpp"
#include "kernels/profile.hpp"
#include "sim/base/files.hpp"
#include "sim/base/units.hpp"

namespace dssim {
namespace {

constexpr double kFewRows = 32, kManyRows = 1024;
constexpr Precision kFormats[] = {Precision::bf16, Precision::fp8, Precision::int8};

class Errors {
 public:
  void add(double predicted_s, double measured_s) { errors_.push_back(std::abs(predicted_s / measured_s - 1)); }
  void close(std::string name, std::vector<OperatorError>& out) {
    if (errors_.empty()) return;
    std::sort(errors_.begin(), errors_.end());
    const auto at = [&](double q) { return errors_[static_cast<size_t>(q * static_cast<double>(errors_.size() - 1))]; };
    out.push_back({std::move(name), errors_.size(), at(0.5), at(0.9), at(1)});
  }

 private:
  std::vector<double> errors_;
};

// Least squares of one group of rows: latency, then amounts whose coefficients are seconds for one of them.
class Law {
 public:
  explicit Law(std::vector<std::pair<std::string, Dimension>> rates) : rates_(std::move(rates)) {}
  void add(std::initializer_list<double> amounts, double seconds) {
    terms_.push_back(1);
    terms_.insert(terms_.end(), amounts);
    seconds_.push_back(seconds);
  }
  void close(std::string name, std::vector<FittedLaw>& out) const {
    const Fit fit = fit_seconds(terms_, rates_.size() + 1, seconds_);
    if (fit.coefficients.empty() || fit.rows < 2 * (rates_.size() + 1)) return;
    FittedLaw law{std::move(name), fit.rows, {{"latency", format_time(fit.coefficients[0])}}, fit.median_error,
                  fit.p90_error};
    for (size_t i = 0; i < rates_.size(); ++i)
      if (const double seconds_each = fit.coefficients[i + 1]; seconds_each > 0)
        law.terms.emplace_back(rates_[i].first, format_rate(1 / seconds_each, rates_[i].second));
    out.push_back(std::move(law));
  }

 private:
  static std::string format_rate(double rate, Dimension dimension) {
    return dimension == Dimension::compute_rate ? format_compute_rate(rate) : format_bandwidth(rate);
  }
  std::vector<std::pair<std::string, Dimension>> rates_;
  std::vector<double> terms_, seconds_;
};

void report_gemm(const Profile& profile, const Machine& machine, ProfileReport& report) {
  for (const Precision format : kFormats) {
    const auto samples = profile.gemm(format);
    if (samples.empty()) continue;
    // The two arms of the roofline: few rows wait for the weights, many for the matrix units.
    Law narrow({{"bandwidth", Dimension::bandwidth}}), wide({{"rate", Dimension::compute_rate}});
    for (const auto& s : samples) {
      if (s.m <= kFewRows) narrow.add({bytes_of(format) * (s.n * s.k + s.m * s.k) + 2 * s.m * s.n}, s.seconds);
      if (s.m >= kManyRows) wide.add({2 * s.m * s.n * s.k}, s.seconds);
    }
    narrow.close(fmt::format("gemm_{}, m to {}", name_of(format), kFewRows), report.laws);
    wide.close(fmt::format("gemm_{}, m from {}", name_of(format), kManyRows), report.laws);
    const GemmTable table(samples, format, machine);
    Errors errors;
    for (const auto& s : profile.gemm(format, "check_gemm"))
      errors.add(table.price(machine, format, s.m, s.n, s.k).seconds, s.seconds);
    errors.close(fmt::format("gemm_{}", name_of(format)), report.errors);
  }
}

void report_attention(const Profile& profile, const Machine& machine, ProfileReport& report) {
  const auto samples = profile.attention(Precision::bf16);
  const MeasuredGpu& on = profile.measured_on();
  const auto add_law = [&](std::string name, const Fit& law, std::initializer_list<const char*> names) {
    FittedLaw fitted{std::move(name), law.rows, {}, law.median_error, law.p90_error};
    size_t i = 0;
    for (const char* term : names) fitted.terms.emplace_back(term, format_time(law.coefficients[i++]));
    report.laws.push_back(std::move(fitted));
  };
  if (on.decode_blocks_per_sm > 0)
    if (const auto law = DecodeLaunch::fit(samples, 2, machine, on.decode_blocks_per_sm))
      add_law("decode_attention", law->law(),
              {"launch", "block", "query row", "page round", "merge", "merge row", "16 parts", "part"});
  if (on.prefill_blocks_per_sm > 0)
    if (const auto law = PrefillLaunch::fit(samples, 2, on))
      add_law("prefill_attention", law->law(), {"launch", "block", "query tile", "KV tile"});
  const DecodeTable decode(samples, 2, machine, on.decode_blocks_per_sm);
  const PrefillTable prefill(samples, 2, on);
  Errors decodes, prefills;
  for (const auto& s : profile.attention(Precision::bf16, "check_attention")) {
    if (s.q_len == 1 && !decode.empty()) {
      const double kv_tokens = s.batch * (s.past_len + 1);
      decodes.add(decode.price(machine, 2, s.heads, s.kv_heads, s.head_dim, s.batch, kv_tokens).seconds, s.seconds);
    } else if (s.q_len > 1 && !prefill.empty()) {
      TileWork one, work;
      one.tile_rows = work.tile_rows = prefill.tile_rows();
      one.add(s.q_len, s.past_len, s.heads, s.kv_heads, s.head_dim, 2, true);
      work.add(one, s.batch);
      prefills.add(prefill.price(machine, work, s).seconds, s.seconds);
    }
  }
  decodes.close("decode_attention", report.errors);
  prefills.close("prefill_attention", report.errors);
}

void report_moe(const Profile& profile, const Machine& machine, ProfileReport& report) {
  for (const Precision format : kFormats) {
    const auto samples = profile.moe(format);
    if (samples.empty()) continue;
    const MoeTable table(samples, format, machine);
    Errors errors;
    for (const auto& s : profile.moe(format, "check_moe")) errors.add(table.price(machine, format, s).seconds, s.seconds);
    errors.close(fmt::format("moe_{}", name_of(format)), report.errors);
  }
}

void report_elementwise(const Profile& profile, const Machine& machine, ProfileReport& report) {
  const auto samples = profile.elementwise();
  const ElementwiseTable table(samples, machine);
  std::map<std::string, Law> laws;
  for (const auto& s : samples) {
    const double bytes = s.rows * s.width * ElementwiseTable::bytes_per_value(s.kernel);
    if (bytes < 2 * machine.l2_bytes) continue;  // as fast as the cache, and no line
    laws.try_emplace(s.kernel, Law({{"bandwidth", Dimension::bandwidth}})).first->second.add({bytes}, s.seconds);
  }
  std::map<std::string, Errors> errors;
  for (const auto& s : profile.elementwise("check_elementwise"))
    if (table.has(s.kernel))
      errors[s.kernel].add(table.price(machine, s.kernel, s.rows, s.width).seconds, s.seconds);
  for (const auto& [kernel, law] : laws) law.close(kernel, report.laws);
  for (auto& [kernel, e] : errors) e.close(kernel, report.errors);
}

void report_bandwidth(const Profile& profile, const Machine& machine, ProfileReport& report) {
  std::map<std::string, Law> laws;
  const auto add = [&](const std::string& name, double bytes, double seconds) {
    laws.try_emplace(name, Law({{"bandwidth", Dimension::bandwidth}})).first->second.add({bytes}, seconds);
  };
  for (const auto& s : profile.copies()) add(s.kernel, s.bytes, s.seconds);
  const auto samples = profile.collectives("nccl");
  for (const auto& s : samples) add(fmt::format("{}, {} GPUs", s.collective, s.gpus), s.bytes, s.seconds);
  for (const auto& s : profile.collectives("all_reduce"))
    add(fmt::format("{}, {} GPUs", s.collective, s.gpus), s.bytes, s.seconds);
  for (const auto& [name, law] : laws) law.close(name, report.laws);
  const CollectiveTable table(samples, machine);
  Errors errors;
  for (const auto& s : profile.collectives("check_nccl"))
    if (table.has(s.collective))
      errors.add(table.price(machine, s.collective, s.gpus, s.bytes).seconds, s.seconds);
  errors.close("collectives", report.errors);
}

}  // namespace

ProfileReport report_on_profile(const std::filesystem::path& folder) {
  const auto whole = std::filesystem::absolute(folder / "stack.toml").lexically_normal().parent_path();
  const Profile profile(whole.parent_path().parent_path(), whole.parent_path().filename().string(),
                        whole.filename().string());
  const Machine machine = Machine::of(profile.measured_on());
  ProfileReport report;
  report.title = profile.stack().title;
  report_gemm(profile, machine, report);
  report_attention(profile, machine, report);
  report_moe(profile, machine, report);
  report_elementwise(profile, machine, report);
  report_bandwidth(profile, machine, report);
  return report;
}

std::string profile_report_text(const ProfileReport& report) {
  std::string text = report.title + "\n";
  text += report.errors.empty() ? "No check tables: how well these tables predict was not judged.\n"
                                : "Predicted against measured, shapes that are in no table:\n";
  if (!report.errors.empty())
    text += fmt::format("  {:<22}{:>7}{:>10}{:>10}{:>10}\n", "", "shapes", "median", "p90", "worst");
  for (const auto& e : report.errors)
    text += fmt::format("  {:<22}{:>7}{:>8.1f} %{:>8.1f} %{:>8.1f} %\n", e.name, e.shapes, 100 * e.median, 100 * e.p90,
                        100 * e.worst);
  if (!report.laws.empty()) text += "Laws fitted to the tables, and how far the rows lie from them:\n";
  for (const auto& law : report.laws) {
    text += fmt::format("  {:<22}{:>7}{:>8.1f} %{:>8.1f} %   ", law.name, law.rows, 100 * law.median, 100 * law.p90);
    for (size_t i = 0; i < law.terms.size(); ++i)
      text += fmt::format("{}{} {}", i == 0 ? "" : i % 4 == 0 ? fmt::format(",\n{:52}", "") : ", ", law.terms[i].first,
                          law.terms[i].second);
    text += '\n';
  }
  return text;
}

std::string profile_report_toml(const ProfileReport& report) {
  std::string text =
      "# How well the tables beside this file predict shapes that are not in them (relative errors), and the laws\n"
      "# fitted to them with their residuals. Written by dssim-calibrate.\n";
  for (const auto& e : report.errors)
    text += fmt::format("\n[[operator]]\nname = \"{}\"\nshapes = {}\nmedian = {:.4f}\np90 = {:.4f}\nworst = {:.4f}\n",
                        e.name, e.shapes, e.median, e.p90, e.worst);
  for (const auto& law : report.laws) {
    text += fmt::format("\n[[law]]\nname = \"{}\"\nrows = {}\n", law.name, law.rows);
    for (const auto& [name, value] : law.terms) text += fmt::format("\"{}\" = \"{}\"\n", name, value);
    text += fmt::format("median_residual = {:.4f}\np90_residual = {:.4f}\n", law.median, law.p90);
  }
  return text;
}

void write_profile_report(const std::filesystem::path& folder, const ProfileReport& report) {
  AtomicFile file(folder / "report.toml");
  file.write(profile_report_toml(report));
  file.commit();
}

}  // namespace dssim
