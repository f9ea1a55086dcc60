// SPDX-License-Identifier: Apache-2.0
#include "platforms/catalogue.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "sim/base/files.hpp"
#include "sim/base/names.hpp"

namespace dssim {
namespace {

constexpr std::array<CatalogueKind, kCatalogueKinds> kKinds{CatalogueKind::gpu,    CatalogueKind::node,
                                                            CatalogueKind::fabric, CatalogueKind::nic,
                                                            CatalogueKind::cpu,    CatalogueKind::storage};
constexpr std::array<std::string_view, kCatalogueKinds> kNames{"gpu", "node", "fabric", "nic", "cpu", "storage"};
constexpr std::array<std::string_view, kCatalogueKinds> kFolders{"gpus", "nodes", "fabrics", "nics", "cpus", "storage"};
constexpr std::array<std::string_view, 4> kFigureKinds{"datasheet", "measured", "assumed", "scenario"};

template <typename Specs>
const auto* find_spec(const Specs& specs, std::string_view key) {
  const auto found = std::find_if(specs.begin(), specs.end(), [&](const auto& spec) { return spec.key == key; });
  return found == specs.end() ? nullptr : &*found;
}

// What a figure of a dimension may be, with a thousandfold and more to spare around anything sold: beyond, simulated times
// would leave what a double counts.
struct Bounds {
  double least, most;
};
Bounds bounds_of(Dimension dimension) {
  switch (dimension) {
    case Dimension::time:
      return {1e-12, 1e6};
    case Dimension::bytes:
      return {1, 1e21};
    case Dimension::bandwidth:
      return {1e3, 1e18};
    case Dimension::compute_rate:
      return {1e6, 1e21};
    case Dimension::ratio:
      return {1e-6, 1e6};
    case Dimension::rate:
    case Dimension::power:
    case Dimension::money:
    case Dimension::frequency:
    case Dimension::count:
      break;
  }
  return {0, 1e15};
}

// What a figure may be, beyond its dimension; "" where it is fine.
std::string objection(const FigureSpec& spec, double value) {
  const double most_counted = spec.key.ends_with("iops") ? 1e12 : 1e6;
  if (spec.required && value == 0) return "must be more than zero";
  if (spec.key.ends_with("efficiency") && value > 1) return "is a share, so it must not be more than 1";
  if (spec.key == "oversubscription" && value < 1) return "must be 1 (non-blocking) or more";
  if (spec.dimension == Dimension::count && (value != std::floor(value) || value > most_counted))
    return fmt::format("must be a whole number of at most {:.0f}", most_counted);
  const auto [least, most] = bounds_of(spec.dimension);
  if (value != 0 && (value < least || value > most))
    return fmt::format("must lie between {} and {}", format_quantity(least, spec.dimension),
                       format_quantity(most, spec.dimension));
  return "";
}

// The figure at `key` of `config`, which is a bare value (an override) or the field "value" of a figure's table.
Figure read_value(const Config& config, std::string_view key, const FigureSpec& spec) {
  Figure figure;
  figure.dimension = spec.dimension;
  figure.value = config.quantity(key, spec.dimension);
  figure.text =
      config.kind(key) == Config::Kind::text ? config.text(key) : format_quantity(figure.value, spec.dimension);
  if (const auto why = objection(spec, figure.value); !why.empty()) throw config.error(key, why);
  return figure;
}

Figure read_figure(const Config& config, const FigureSpec& spec) {
  static const std::vector<std::string> kinds{"datasheet", "measured", "assumed"};
  Figure figure = read_value(config, "value", spec);
  figure.source = config.text("source");
  if (figure.source.empty()) throw config.error("source", "must name where the figure comes from");
  const std::string kind = config.choice("kind", kinds);
  figure.kind = static_cast<FigureKind>(std::find(kinds.begin(), kinds.end(), kind) - kinds.begin());
  return figure;
}

std::vector<std::string> keys_of(CatalogueKind kind) {
  std::vector<std::string> keys;
  for (const auto& spec : figure_specs(kind)) keys.emplace_back(fmt::format("{}.{}", name_of(kind), spec.key));
  for (const auto& spec : word_specs(kind))
    if (spec.key != "note") keys.emplace_back(fmt::format("{}.{}", name_of(kind), spec.key));
  return keys;
}

bool is_plain_name(std::string_view name) {
  const auto plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.'; };
  return !name.empty() && name.front() != '.' && std::all_of(name.begin(), name.end(), plain);
}

}  // namespace

std::string_view name_of(CatalogueKind kind) {
  return kNames[static_cast<size_t>(kind)];
}
std::string_view folder_of(CatalogueKind kind) {
  return kFolders[static_cast<size_t>(kind)];
}
std::span<const CatalogueKind> catalogue_kinds() {
  return kKinds;
}
std::string_view name_of(FigureKind kind) {
  return kFigureKinds[static_cast<size_t>(kind)];
}

double Entry::figure(std::string_view key, double fallback) const {
  const auto found = figures.find(key);
  return found == figures.end() ? fallback : found->second.value;
}

std::string Entry::word(std::string_view key, std::string_view fallback) const {
  const auto found = words.find(key);
  return found == words.end() ? std::string(fallback) : found->second;
}

Catalogue::Catalogue() : Catalogue(data_root() / "platforms/catalogue") {}
Catalogue::Catalogue(std::filesystem::path folder) : folder_(std::move(folder)) {}

std::vector<std::string> Catalogue::names(CatalogueKind kind) const {
  return names_in(folder_ / folder_of(kind), ".toml");
}

const Entry& Catalogue::entry(CatalogueKind kind, const std::string& name) {
  const auto key = std::make_pair(kind, name);
  if (const auto known = entries_.find(key); known != entries_.end()) return known->second;
  Entry entry = read(kind, name);
  for (const Override& change : overrides_[kind]) {
    if (change.figure)
      entry.figures[change.key] = *change.figure;
    else
      entry.words[change.key] = change.word;
  }
  return entries_.emplace(key, std::move(entry)).first->second;
}

Entry Catalogue::read(CatalogueKind kind, const std::string& name) const {
  const auto path = folder_ / folder_of(kind) / (name + ".toml");
  if (!is_plain_name(name) || !std::filesystem::exists(path))
    throw bad_input(unknown_name(name_of(kind), name, names(kind)));
  const Config config = Config::load(path.string());
  Entry entry;
  entry.kind = kind;
  entry.name = name;
  entry.file = path.string();
  entry.title = config.text("title");
  for (const WordSpec& spec : word_specs(kind)) {
    if (!spec.required && !config.find_text(spec.key)) continue;
    entry.words[std::string(spec.key)] =
        spec.choices.empty() ? config.text(spec.key) : config.choice(spec.key, spec.choices);
  }
  const Config figures = config.table("figures");
  for (const FigureSpec& spec : figure_specs(kind)) {
    if (const auto table = figures.find_table(spec.key))
      entry.figures[std::string(spec.key)] = read_figure(*table, spec);
    else if (spec.required)
      throw figures.error(spec.key, "is missing");
  }
  config.finish();
  return entry;
}

void Catalogue::override_with(const Config& table) {
  for (const std::string& key : table.keys()) {
    const auto dot = key.find('.');
    const auto named = std::find(kNames.begin(), kNames.end(), std::string_view(key).substr(0, dot));
    if (dot == std::string::npos || named == kNames.end()) {
      std::vector<std::string> all;
      for (const CatalogueKind kind : kKinds)
        for (auto& valid : keys_of(kind)) all.push_back(std::move(valid));
      throw table.error(key, unknown_name("figure", key, all));
    }
    const CatalogueKind kind = kKinds[static_cast<size_t>(named - kNames.begin())];
    Override change{key.substr(dot + 1), std::nullopt, "", table.where(key)};
    if (const FigureSpec* spec = find_spec(figure_specs(kind), change.key)) {
      change.figure = read_value(table, key, *spec);
      change.figure->source = "this scenario's cluster.override";
      change.figure->kind = FigureKind::scenario;
    } else if (const WordSpec* word = find_spec(word_specs(kind), change.key); word != nullptr && word->key != "note") {
      change.word = word->choices.empty() ? table.text(key) : table.choice(key, word->choices);
    } else {
      throw table.error(key, unknown_name("figure", key, keys_of(kind)));
    }
    overrides_[kind].push_back(std::move(change));
  }
}

void Catalogue::refuse_unused_overrides() const {
  for (const auto& [kind, changes] : overrides_) {
    const bool used =
        std::any_of(entries_.begin(), entries_.end(), [&](const auto& e) { return e.first.first == kind; });
    if (!used && !changes.empty())
      throw bad_input(fmt::format("{}: this cluster uses no {} to change", changes.front().where, name_of(kind)));
  }
}

std::vector<const Entry*> Catalogue::entries_in_use() const {
  std::vector<const Entry*> used;
  for (const auto& [key, entry] : entries_) used.push_back(&entry);
  return used;
}

}  // namespace dssim
