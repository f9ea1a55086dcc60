// SPDX-License-Identifier: Apache-2.0
#include "kernels/profile.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "sim/base/config.hpp"
#include "sim/base/csv.hpp"
#include "sim/base/error.hpp"
#include "sim/base/files.hpp"

namespace dssim {
namespace {

constexpr double kLargest = 1e15;

double positive(const CsvTable& csv, size_t column) {
  const double value = csv.number(column);
  if (!(value > 0 && value <= kLargest))
    throw csv.error(column, fmt::format("{} is out of range; it must be above 0", value));
  return value;
}

double counted(const CsvTable& csv, size_t column) {
  const double value = csv.number(column);
  if (!(value >= 0 && value <= kLargest))
    throw csv.error(column, fmt::format("{} is out of range; it must be 0 or more", value));
  return value;
}

int small(const CsvTable& csv, size_t column) {
  const int64_t value = csv.integer(column);
  if (value < 1 || value > 1'000'000)
    throw csv.error(column, fmt::format("{} is out of range; it must be 1 or more", value));
  return static_cast<int>(value);
}

// The word a 16-bit format goes by in the tables: bf16 and fp16 run at one rate.
std::string_view format_of(Precision p) {
  return p == Precision::fp16 ? name_of(Precision::bf16) : name_of(p);
}

bool is_format(std::string_view text, std::string_view format) {
  return text == format || (format == "bf16" && (text == "fp16" || text == "bfloat16"));
}

AttentionKernel attention_of(const Config& config) {
  static const std::vector<std::string> words{"flash-2", "flash-3"};
  return config.choice("attention", words) == "flash-3" ? AttentionKernel::flash3 : AttentionKernel::flash2;
}

// The area under what is lost, trapezoid by trapezoid from the cap on, over the first loss.
double recovery_s(const std::filesystem::path& path) {
  CsvTable csv(path, {"after", "seconds"});
  std::vector<std::pair<double, double>> rows;
  while (csv.next()) {
    rows.emplace_back(positive(csv, 0), positive(csv, 1));
    if (rows.size() > 1 && rows.back().first <= rows[rows.size() - 2].first)
      throw csv.error(0, "must be later than in the row before");
  }
  const auto refused = [&](const char* what) { return bad_input(fmt::format("{}: {}", path.string(), what)); };
  if (rows.size() < 2) throw refused("needs two rows or more");
  const double highest = rows.back().second, lost = rows.front().second - highest;
  if (lost <= 0) throw refused("the first row must take longer than the last");
  double area = rows.front().first * lost;
  for (size_t i = 1; i < rows.size(); ++i)
    area += (rows[i].first - rows[i - 1].first) *
            (std::max(0.0, rows[i].second - highest) + std::max(0.0, rows[i - 1].second - highest)) / 2;
  return area / lost;
}

}  // namespace

Profile::Profile(const std::filesystem::path& root, const std::string& gpu, const std::string& stack)
    : folder_(root / gpu / stack) {
  const Config config = Config::load((folder_ / "stack.toml").string());
  stack_.name = stack;
  stack_.gpu = gpu;
  stack_.title = config.text("title");
  source_ = config.text("source");
  kernels_ = config.text("kernels", "");
  complete_ = config.boolean("complete", true);

  const Config on = config.table("measured_on");
  measured_on_.bf16_flops_per_s = on.quantity("bf16", Dimension::compute_rate);
  measured_on_.fp8_flops_per_s = on.quantity("fp8", Dimension::compute_rate, 0);
  measured_on_.memory_bytes_per_s = on.quantity("memory_bandwidth", Dimension::bandwidth);
  measured_on_.l2_bytes = on.quantity("l2", Dimension::bytes);
  measured_on_.nvlink_bytes_per_s = on.quantity("nvlink", Dimension::bandwidth, 0);
  measured_on_.sms = static_cast<int>(on.integer("sms", {1, 100000}));
  measured_on_.architecture = on.text("architecture");
  measured_on_.attention_tile_rows = static_cast<int>(on.integer("attention_tile_rows", {16, 1024}, 128));
  measured_on_.attention_writes_kv = on.boolean("attention_writes_kv", false);
  measured_on_.prefill_blocks_per_sm = static_cast<int>(on.integer("prefill_blocks_per_sm", {0, 64}, 0));
  measured_on_.decode_blocks_per_sm = static_cast<int>(on.integer("decode_blocks_per_sm", {0, 64}, 0));
  if (measured_on_.bf16_flops_per_s <= 0) throw on.error("bf16", "must be above 0");
  if (measured_on_.memory_bytes_per_s <= 0) throw on.error("memory_bandwidth", "must be above 0");

  const Config memory = config.table("memory");
  stack_.memory.context_bytes = memory.quantity("context", Dimension::bytes);
  stack_.memory.graphs_bytes = memory.quantity("graphs", Dimension::bytes, 0);
  stack_.memory.communication_bytes = memory.quantity("communication", Dimension::bytes, 0);

  const Config engine = config.table("engine");
  if (engine.has("graph_batch_sizes")) stack_.graph_batch_sizes = engine.integers("graph_batch_sizes", {1, 1 << 20});
  for (size_t i = 1; i < stack_.graph_batch_sizes.size(); ++i)
    if (stack_.graph_batch_sizes[i] <= stack_.graph_batch_sizes[i - 1])
      throw engine.error("graph_batch_sizes", "must rise from each size to the next");
  stack_.graph_context_tokens = engine.integer("graph_context_tokens", {0, 1 << 24}, 0);
  stack_.piecewise_graph_tokens = engine.integer("piecewise_graph_tokens", {0, 1 << 20}, 0);
  stack_.attention = attention_of(engine);
  stack_.attention_writes_kv = measured_on_.attention_writes_kv;
  stack_.rope_writes_kv = on.boolean("rope_writes_kv", false);
  stack_.padding_attends = engine.boolean("padding_attends", false);
  stack_.schedules_ahead = engine.boolean("schedules_ahead", false);
  stack_.prompt_must_fit = engine.boolean("prompt_must_fit", false);
  stack_.iteration_host_s = engine.quantity("iteration_host", Dimension::time, 0);
  stack_.sequence_host_s = engine.quantity("sequence_host", Dimension::time, 0);
  stack_.eager_host_s = engine.quantity("eager_host", Dimension::time, 0);
  stack_.eager_launch_s = engine.quantity("eager_launch", Dimension::time, 0);
  stack_.piecewise_launch_s = engine.quantity("piecewise_launch", Dimension::time, 0);
  stack_.layer_gap_s = engine.quantities("layer_gap", Dimension::time);
  stack_.eager_gap_s = engine.has("eager_gap") ? engine.quantities("eager_gap", Dimension::time) : stack_.layer_gap_s;
  stack_.frontend_latency_s = engine.quantity("frontend_latency", Dimension::time, 0);
  stack_.frontend_token_s = engine.quantity("frontend_token", Dimension::time, 0);
  stack_.prefill_slowdown = engine.number("prefill_slowdown", {0.1, 10}, 1);
  stack_.decode_slowdown = engine.number("decode_slowdown", {0.1, 10}, 1);
  config.finish();
}

std::filesystem::path Profile::file(std::string_view table, std::string_view format) const {
  for (const std::string& stem : {fmt::format("{}.{}", table, format), std::string(table)})
    for (const char* suffix : {".csv.gz", ".csv"})
      if (auto path = folder_ / (stem + suffix); std::filesystem::exists(path)) return path;
  return {};
}

bool Profile::has(std::string_view table, std::string_view format) const {
  return !file(table, format).empty();
}

std::vector<GemmSample> Profile::gemm(Precision weights, std::string_view table) const {
  std::vector<GemmSample> samples;
  const auto path = file(table, format_of(weights));
  if (path.empty()) return samples;
  CsvTable csv(path, {"dtype", "m", "n", "k", "seconds"});
  while (csv.next())
    if (is_format(csv.text(0), format_of(weights)))
      samples.push_back({positive(csv, 1), positive(csv, 2), positive(csv, 3), positive(csv, 4)});
  return samples;
}

std::vector<AttentionSample> Profile::attention(Precision kv_cache, std::string_view table) const {
  std::vector<AttentionSample> samples;
  const auto path = file(table, format_of(kv_cache));
  if (path.empty()) return samples;
  CsvTable csv(path, {"kv_dtype", "batch", "q_len", "past_len", "heads", "kv_heads", "head_dim", "seconds"});
  while (csv.next())
    if (is_format(csv.text(0), format_of(kv_cache)))
      samples.push_back({positive(csv, 1), positive(csv, 2), counted(csv, 3), small(csv, 4), small(csv, 5),
                         small(csv, 6), positive(csv, 7)});
  return samples;
}

std::vector<MixedAttentionSample> Profile::mixed_attention(Precision kv_cache) const {
  std::vector<MixedAttentionSample> samples;
  const auto path = file("attention_mixed", format_of(kv_cache));
  if (path.empty()) return samples;
  CsvTable csv(path, {"kv_dtype", "heads", "kv_heads", "head_dim", "q_len", "past_len", "decode_batch", "decode_kv_len",
                      "seconds"});
  while (csv.next())
    if (is_format(csv.text(0), format_of(kv_cache)))
      samples.push_back({small(csv, 1), small(csv, 2), small(csv, 3), positive(csv, 4), counted(csv, 5),
                         positive(csv, 6), positive(csv, 7), positive(csv, 8)});
  return samples;
}

std::vector<LatentSample> Profile::latent_attention(Precision kv_cache) const {
  std::vector<LatentSample> samples;
  const auto path = file("latent_attention", format_of(kv_cache));
  if (path.empty()) return samples;
  CsvTable csv(path, {"way", "kv_dtype", "heads", "batch", "q_len", "past_len", "seconds"});
  while (csv.next()) {
    if (csv.text(0) != "absorbed" && csv.text(0) != "expanded")
      throw csv.error(0, fmt::format("'{}' is neither absorbed nor expanded", csv.text(0)));
    const bool absorbed = csv.text(0) == "absorbed";
    if (is_format(csv.text(1), format_of(kv_cache)))
      samples.push_back(
          {absorbed, small(csv, 2), positive(csv, 3), positive(csv, 4), counted(csv, 5), positive(csv, 6)});
  }
  return samples;
}

std::vector<MoeSample> Profile::moe(Precision weights, std::string_view table) const {
  std::vector<MoeSample> samples;
  const auto path = file(table, format_of(weights));
  if (path.empty()) return samples;
  CsvTable csv(path, {"dtype", "distribution", "tokens", "hidden", "ffn", "top_k", "experts", "tp", "ep", "seconds"});
  while (csv.next())
    if (is_format(csv.text(0), format_of(weights)))
      samples.push_back({positive(csv, 2), positive(csv, 3), positive(csv, 4), positive(csv, 5), positive(csv, 6),
                         positive(csv, 7), positive(csv, 8), positive(csv, 9), csv.text(1) == "balanced"});
  return samples;
}

std::vector<ElementwiseSample> Profile::elementwise(std::string_view table) const {
  std::vector<ElementwiseSample> samples;
  const auto path = file(table, "");
  if (path.empty()) return samples;
  CsvTable csv(path, {"kernel", "rows", "width", "seconds"});
  while (csv.next())
    samples.push_back({std::string(csv.text(0)), positive(csv, 1), positive(csv, 2), positive(csv, 3)});
  return samples;
}

std::vector<CollectiveSample> Profile::collectives(std::string_view table) const {
  std::vector<CollectiveSample> samples;
  const auto path = file(table, "");
  if (path.empty()) return samples;
  CsvTable csv(path, {"collective", "gpus", "bytes", "seconds"});
  while (csv.next()) samples.push_back({std::string(csv.text(0)), small(csv, 1), positive(csv, 2), positive(csv, 3)});
  return samples;
}

std::optional<Uncertainty> Profile::uncertainty(std::string_view op) const {
  if (!uncertainties_) {
    uncertainties_.emplace();
    if (const auto path = folder_ / "report.toml"; std::filesystem::exists(path))
      for (const Config& row : Config::load(path.string()).tables("operator"))
        uncertainties_->insert({row.text("name"), {row.number("median", {0, 1e3}), row.number("p90", {0, 1e3})}});
  }
  const auto at = uncertainties_->find(op);
  return at == uncertainties_->end() ? std::nullopt : std::optional(at->second);
}

std::vector<CopySample> Profile::copies() const {
  std::vector<CopySample> samples;
  const auto path = file("copy", "");
  if (path.empty()) return samples;
  CsvTable csv(path, {"kernel", "bytes", "seconds"});
  while (csv.next()) samples.push_back({std::string(csv.text(0)), positive(csv, 1), positive(csv, 2)});
  return samples;
}

// What decode-like work keeps of the clock that products under the cap lose; 0 where power.csv is not there.
double Profile::held_clock() const {
  const auto path = file("power", "");
  if (path.empty()) return 0;
  double highest = 0, products = 0, decodes = 0;
  for (CsvTable csv(path, {"regime", "sm_clock_mhz"}); csv.next();) {
    const double mhz = counted(csv, 1);
    highest = std::max(highest, mhz);
    if (csv.text(0) == "compute_bound") products = mhz;
    if (csv.text(0) == "decode_like") decodes = mhz;
  }
  if (products <= 0 || decodes <= 0 || products >= highest) return 0;
  return std::min(1.0, (highest - decodes) / (highest - products));
}

PowerCap Profile::power_cap() const {
  const auto cap = file("power_cap", ""), burst = file("power_burst", ""), recovery = file("power_recovery", "");
  if (cap.empty() || burst.empty()) return {};
  std::vector<PowerCapSample> kernels;
  CsvTable csv(cap, {"dtype", "flops", "burst_seconds", "seconds"});
  while (csv.next()) {
    const double rate = is_format(csv.text(0), "fp8") ? measured_on_.fp8_flops_per_s : measured_on_.bf16_flops_per_s;
    kernels.push_back({counted(csv, 1) / (rate * positive(csv, 2)), positive(csv, 2), positive(csv, 3)});
  }
  CsvTable bursts(burst, {"regime", "seconds"});
  while (bursts.next())
    if (bursts.text(0) == "decode_like") {
      const double burst_s = positive(bursts, 1);
      return PowerCap(kernels, burst_s, recovery.empty() ? burst_s : recovery_s(recovery), held_clock());
    }
  return {};
}

}  // namespace dssim
