// SPDX-License-Identifier: Apache-2.0
#include "sim/report/catalogue_text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <functional>

#include "kernels/cost_model.hpp"
#include "kernels/profile_report.hpp"
#include "platforms/catalogue.hpp"
#include "platforms/node.hpp"
#include "sim/base/error.hpp"
#include "sim/base/files.hpp"
#include "sim/base/names.hpp"
#include "sim/base/units.hpp"
#include "sim/report/text_layout.hpp"
#include "workloads/architecture.hpp"
#include "workloads/trace.hpp"

namespace dssim {
namespace {

struct Row {
  std::string name, title;
};
using Rows = std::vector<Row>;

[[noreturn]] void refuse_name(const std::string& section, const std::string& name,
                              const std::vector<std::string>& valid) {
  throw bad_input(unknown_name(section.substr(0, section.size() - (section.ends_with('s') ? 1 : 0)), name, valid));
}

// ---- hardware

Rows hardware_list(CatalogueKind kind) {
  Catalogue catalogue;
  Rows rows;
  for (const auto& name : catalogue.names(kind)) rows.push_back({name, catalogue.entry(kind, name).title});
  return rows;
}

std::string hardware_entry(CatalogueKind kind, const std::string& name) {
  Catalogue catalogue;
  const Entry& entry = catalogue.entry(kind, name);
  TextLayout out(false);
  out.title(fmt::format("{}: {}", entry.name, entry.title));
  for (const auto& [key, word] : entry.words) out.line(fmt::format("{:<29}", key), word);
  for (const FigureSpec& spec : figure_specs(kind)) {
    const auto it = entry.figures.find(spec.key);
    if (it == entry.figures.end()) continue;
    out.plain(fmt::format("  {:<30}{:<16}{}", spec.key, it->second.text, name_of(it->second.kind)));
    out.line("", it->second.source);
  }
  return out.take();
}

// ---- models

Rows model_list() {
  Rows rows;
  for (const auto& name : model_names()) {
    const Architecture model = load_model(name);
    rows.push_back({name, fmt::format("{:<32}{:>9}", model.title, fmt::format("{:.4g} B", model.parameters() / 1e9))});
  }
  return rows;
}

std::string model_entry(const std::string& name) {
  const auto names = model_names();
  if (std::find(names.begin(), names.end(), name) == names.end()) refuse_name("models", name, names);
  const Architecture m = load_model(name);
  TextLayout out(false);
  out.title(fmt::format("{}: {}", m.name, m.title));
  const auto count = [&](std::string_view key, int64_t value) { out.plain(fmt::format("  {:<30}{}", key, value)); };
  out.plain(fmt::format("  {:<30}{:.0f}", "parameters", m.parameters()));
  if (m.is_moe()) out.plain(fmt::format("  {:<30}{:.0f}", "active parameters", m.active_parameters()));
  count("layers", m.layers);
  count("hidden", m.hidden);
  count("heads", m.heads);
  count("kv_heads", m.kv_heads);
  count("head_dim", m.head_dim);
  count("ffn", m.ffn);
  if (m.is_moe()) count("experts", m.experts), count("experts_per_token", m.experts_per_token);
  if (m.shared_ffn > 0) count("shared_ffn", m.shared_ffn);
  if (m.dense_layers > 0) count("dense_layers", m.dense_layers), count("dense_ffn", m.dense_ffn);
  if (m.is_mla()) {
    if (m.q_lora_rank > 0) count("q_lora_rank", m.q_lora_rank);
    count("kv_lora_rank", m.kv_lora_rank);
    count("qk_nope_head_dim", m.qk_nope_head_dim);
    count("qk_rope_head_dim", m.qk_rope_head_dim);
    count("v_head_dim", m.v_head_dim);
  }
  count("vocabulary", m.vocabulary);
  count("max_positions", m.max_positions);
  out.plain(fmt::format("  {:<30}{}", "KV cache per token, 16 bit", format_bytes(2 * m.kv_values_per_token())));
  out.line("source", m.source);
  return out.take();
}

// ---- traces

Rows trace_list() {
  Rows rows;
  for (const auto& name : trace_names()) rows.push_back({name, load_trace_info(name).title});
  return rows;
}

std::string trace_entry(const std::string& name) {
  const auto names = trace_names();
  if (std::find(names.begin(), names.end(), name) == names.end()) refuse_name("traces", name, names);
  const TraceInfo t = load_trace_info(name);
  TextLayout out(false);
  out.title(fmt::format("{}: {}", t.name, t.title));
  out.plain(fmt::format("  {:<30}{}", "requests", t.requests));
  out.plain(fmt::format("  {:<30}{}", "duration", format_time(t.duration_s)));
  out.plain(fmt::format("  {:<30}{:.4g}/s", "mean rate", t.mean_rate_per_s()));
  out.plain(fmt::format("  {:<30}{:.1f}", "mean input tokens", t.mean_input_tokens));
  out.plain(fmt::format("  {:<30}{:.1f}", "mean output tokens", t.mean_output_tokens));
  out.line("source", t.source);
  out.line("licence", t.licence);
  return out.take();
}

// ---- engine stacks

Rows stack_list() {
  Rows rows;
  for (const auto& profile : profiles())
    rows.push_back({fmt::format("{} / {}", profile.gpu, profile.stack), profile.title});
  return rows;
}

// NAME is a stack, shown for each GPU it was measured on; or <gpu>/<stack>, or the folder of a profile, whose tables
// then report on themselves.
std::string stack_entry(const std::string& name) {
  if (const std::filesystem::path folder(name); name.find('/') != std::string::npos) {
    const auto installed = data_root() / "kernels" / "profiles" / folder;
    const auto found = std::filesystem::exists(folder / "stack.toml") ? folder : installed;
    if (!std::filesystem::exists(found / "stack.toml"))
      throw bad_input(fmt::format("stack {}: no profile; dssim catalogue stacks lists those there are", name));
    return profile_report_text(report_on_profile(found));
  }
  std::vector<std::string> names;
  std::string text;
  for (const auto& profile : profiles()) {
    if (std::find(names.begin(), names.end(), profile.stack) == names.end()) names.push_back(profile.stack);
    if (profile.stack != name) continue;
    TextLayout out(false);
    out.title(fmt::format("{} / {}: {}", profile.gpu, profile.stack, profile.title));
    for (const auto& source : CostModel::load(load_gpu(profile.gpu), name).sources()) out.line("from", source);
    text += out.take();
  }
  if (text.empty()) refuse_name("stacks", name, names);
  return text;
}

// ---- the table of sections

struct Section {
  std::string name;
  std::function<Rows()> list;
  std::function<std::string(const std::string&)> entry;
};

std::vector<Section> sections() {
  std::vector<Section> all;
  for (const CatalogueKind kind : catalogue_kinds())
    all.push_back({std::string(folder_of(kind)), [kind] { return hardware_list(kind); },
                   [kind](const std::string& name) { return hardware_entry(kind, name); }});
  all.push_back({"models", model_list, model_entry});
  all.push_back({"traces", trace_list, trace_entry});
  all.push_back({"stacks", stack_list, stack_entry});
  return all;
}

Section find_section(const std::string& name) {
  for (auto& section : sections())
    if (section.name == name) return section;
  throw bad_input(unknown_name("section", name, catalogue_sections()));
}

}  // namespace

std::vector<std::string> catalogue_sections() {
  std::vector<std::string> names;
  for (const auto& section : sections()) names.push_back(section.name);
  return names;
}

std::string catalogue_overview() {
  std::string text;
  for (const auto& section : sections()) {
    text += fmt::format("{:<12}{:>4}   dssim catalogue {}\n", section.name, section.list().size(), section.name);
  }
  return text;
}

std::string catalogue_list(const std::string& section) {
  TextLayout out(false);
  for (const Row& row : find_section(section).list()) out.line(fmt::format("{:<27}", row.name), row.title);
  return out.take();
}

std::string catalogue_entry(const std::string& section, const std::string& name) {
  return find_section(section).entry(name);
}

}  // namespace dssim
